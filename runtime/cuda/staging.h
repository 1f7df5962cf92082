// Pinned host memory that bytes pass through on their way to and from a device.
//
// To the device: a ring of slots, each free again when its copy is done, so the caller's memory can
// change at once. From the device: copied in slices, and waited for.
// Not for several threads at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/cuda/handles.h"

namespace caravan::cuda {

class Staging {
 public:
  // `waiter` outlives it.
  explicit Staging(const Waiter& waiter);
  // Ordered on the stream; returns when `host` has been read.
  void copy_in(void* device, const void* host, int64_t bytes, cudaStream_t stream);
  // Waits for the stream.
  void copy_out(void* host, const void* device, int64_t bytes, cudaStream_t stream);

 private:
  static constexpr int64_t kSlotBytes = 4 << 20;
  static constexpr size_t kSlots = 4;

  std::byte* slot(size_t i) const { return memory_.data() + i * size_t{kSlotBytes}; }

  const Waiter& waiter_;
  PinnedMemory memory_;
  std::array<Event, kSlots> free_;
  size_t next_ = 0;
};

// What collectives use that must know numbers on the host: the vectors keep their memory.
struct Host {
  Staging staging;
  std::vector<int32_t> counts = {};
  std::vector<int64_t> send_bytes = {}, recv_bytes = {};  // by rank
};

}  // namespace caravan::cuda
