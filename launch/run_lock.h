// The lock of a run folder, <output_dir>/lock: held by the process that trains there. The kernel
// drops it with the process, however that ends.
#pragma once

#include <string>

namespace caravan {

class RunLock {
 public:
  // Makes the file when it is missing. Throws std::system_error when that cannot be done.
  explicit RunLock(const std::string& output_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  // Whether we have it; otherwise another process does. Never waits.
  bool is_held() const { return is_held_; }

 private:
  int descriptor_ = -1;
  bool is_held_ = false;
};

}  // namespace caravan
