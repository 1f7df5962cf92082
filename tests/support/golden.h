// Golden files: what a text must be, stored in tests/golden.
#pragma once

#include <string>

namespace caravan {

// A test failure unless tests/golden/<file> holds exactly `text`; it names the first line that
// differs. With CARAVAN_UPDATE_GOLDEN=1 in the environment the file is written instead.
void expect_golden(const std::string& file, const std::string& text);

}  // namespace caravan
