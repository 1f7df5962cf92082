// What the operating system says that this process holds.
#pragma once

#include <cstdint>

namespace caravan {

int64_t resident_bytes();       // now
int64_t peak_resident_bytes();  // the most so far

}  // namespace caravan
