// What the machine gives this process: processors. (Memory: runtime/memory_limit.h.)
#pragma once

#include <string>
#include <vector>

namespace caravan {

// Processors that this process may run on: its affinity, cut to the quota of its control group
// (rounded up), at least 1. `root` is "" outside tests.
int usable_processors(const std::string& root = "");

// Quota of the control group in processors, 0 when there is none.
double processor_quota(const std::string& root = "");

std::string processor_name(const std::string& root = "");  // "unknown" if so
std::vector<std::string> processor_vector_features(const std::string& root = "");  // "avx2", ...

}  // namespace caravan
