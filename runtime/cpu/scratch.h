// Cuts typed arrays out of a kernel's workspace. `workspace_bytes` of an op adds up the same
// arrays with `scratch_bytes`; taking more than that fails a check.
// Arrays are as far apart as cache lines, and aligned to them when the workspace is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/backend.h"
#include "runtime/error.h"

namespace caravan::cpu {

inline constexpr int64_t kScratchAlignment = 64;

template <typename T>
constexpr int64_t scratch_bytes(int64_t count) {
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

class Scratch {
 public:
  explicit Scratch(const KernelArgs& args)
      : next_(static_cast<std::byte*>(args.workspace)), left_(args.workspace_bytes) {}

  template <typename T>
  T* take(int64_t count) {
    const int64_t bytes = scratch_bytes<T>(count);
    check(bytes <= left_, "[cpu] workspace: %d bytes are wanted, %d are left", bytes, left_);
    T* taken = reinterpret_cast<T*>(next_);
    next_ += bytes;
    left_ -= bytes;
    return taken;
  }

 private:
  std::byte* next_;
  int64_t left_;
};

}  // namespace caravan::cpu
