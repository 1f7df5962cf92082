// What this build and this machine are, and what is missing: the text of `caravan doctor`.
// It looks; it starts nothing and changes nothing.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace caravan {

// Something that will hurt, and what to do about it.
struct Finding {
  std::string problem, fix;
};

struct DoctorReport {
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<Finding> findings;
};

DoctorReport examine_machine();

std::string to_string(const DoctorReport& report);

}  // namespace caravan
