#include "runtime/cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace caravan::cuda {

Staging::Staging(const Waiter& waiter)
    : waiter_(waiter), memory_(kSlotBytes * static_cast<int64_t>(kSlots)) {}

void Staging::copy_in(void* device, const void* host, int64_t bytes, cudaStream_t stream) {
  for (int64_t done = 0; done < bytes; done += kSlotBytes) {
    const auto part = static_cast<size_t>(std::min(kSlotBytes, bytes - done));
    waiter_.wait(free_[next_]);
    std::memcpy(slot(next_), static_cast<const std::byte*>(host) + done, part);
    check_cuda(cudaMemcpyAsync(static_cast<std::byte*>(device) + done, slot(next_), part,
                               cudaMemcpyHostToDevice, stream),
               "copy to the device");
    free_[next_].record(stream);
    next_ = (next_ + 1) % kSlots;
  }
}

void Staging::copy_out(void* host, const void* device, int64_t bytes, cudaStream_t stream) {
  const auto start = [&](int64_t at, size_t in) {
    const auto part = static_cast<size_t>(std::min(kSlotBytes, bytes - at));
    waiter_.wait(free_[in]);
    check_cuda(cudaMemcpyAsync(slot(in), static_cast<const std::byte*>(device) + at, part,
                               cudaMemcpyDeviceToHost, stream),
               "copy from the device");
    free_[in].record(stream);
  };
  if (bytes > 0) start(0, 0);
  for (int64_t at = 0; at < bytes; at += kSlotBytes) {  // the next slice travels meanwhile
    const auto index = static_cast<size_t>(at / kSlotBytes) % kSlots;
    const int64_t next = at + kSlotBytes;
    if (next < bytes) start(next, (index + 1) % kSlots);
    waiter_.wait(free_[index]);
    std::memcpy(static_cast<std::byte*>(host) + at, slot(index),
                static_cast<size_t>(std::min(kSlotBytes, bytes - at)));
  }
}

}  // namespace caravan::cuda
