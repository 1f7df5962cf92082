// Polled waits: see handles.h. A wait spins at first, as most are short, and then sleeps between
// polls; the check comes too rarely to cost anything.
#include <chrono>
#include <thread>

#include "runtime/cuda/handles.h"

namespace caravan::cuda {

void Waiter::poll(const std::function<cudaError_t()>& query, const char* what) const {
  using Clock = std::chrono::steady_clock;
  constexpr auto kEagerTime = std::chrono::milliseconds(1);
  constexpr auto kPollInterval = std::chrono::microseconds(20);
  constexpr auto kCheckInterval = std::chrono::milliseconds(10);
  const auto start = Clock::now();
  auto next_check = start + kCheckInterval;
  while (true) {
    const cudaError_t status = query();
    if (status != cudaErrorNotReady) return check_cuda(status, what);
    const auto now = Clock::now();
    if (now > next_check) {
      check_();
      next_check = now + kCheckInterval;
    }
    if (now > start + kEagerTime) std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace caravan::cuda
