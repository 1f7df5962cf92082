// Cuts typed arrays out of an op's workspace, aligned to 256 bytes wherever the workspace begins.
// `workspace_bytes` of an op adds up the same arrays with `taken_bytes` and kWorkspaceSlack.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/backend.h"
#include "runtime/cuda/check.h"

namespace caravan::cuda {

inline constexpr int64_t kWorkspaceSlack = 256;

template <typename T>
constexpr int64_t taken_bytes(int64_t count) {
  return (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
}

class Workspace {
 public:
  explicit Workspace(const KernelArgs& args)
      : next_(reinterpret_cast<uintptr_t>(args.workspace)),
        end_(next_ + static_cast<uintptr_t>(args.workspace_bytes)) {
    next_ = (next_ + 255) / 256 * 256;
  }

  template <typename T>
  T* take(int64_t count) {
    T* const taken = reinterpret_cast<T*>(next_);
    next_ += static_cast<uintptr_t>(taken_bytes<T>(count));
    check_that(count == 0 || next_ <= end_, "an op takes more workspace than it asked for");
    return taken;
  }

 private:
  uintptr_t next_;
  uintptr_t end_;
};

}  // namespace caravan::cuda
