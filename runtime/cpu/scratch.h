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
      : Scratch(static_cast<std::byte*>(args.workspace), args.workspace_bytes) {}
  Scratch(std::byte* begin, int64_t bytes) : next_(begin), left_(bytes) {}

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

// Equal parts of a kernel's workspace, one for each thread.
class ThreadScratch {
 public:
  ThreadScratch(const KernelArgs& args, int64_t bytes_per_thread, int num_threads)
      : all_(Scratch(args).take<std::byte>(bytes_per_thread * num_threads)),
        bytes_(bytes_per_thread) {}
  Scratch of(int thread) const { return {all_ + thread * bytes_, bytes_}; }

 private:
  std::byte* all_;
  int64_t bytes_;  // a multiple of kScratchAlignment, when made of scratch_bytes
};

}  // namespace caravan::cpu
