// The time of day. What is measured is measured with std::chrono::steady_clock.
#pragma once

#include <chrono>

namespace caravan {

// Since 1970.
inline double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace caravan
