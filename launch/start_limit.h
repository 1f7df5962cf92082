// Ends a process whose start takes too long. The watchdog needs MPI and a plan that all ranks
// share; until then a rank that is stopped or waits for a dead disk would leave the others waiting
// for ever. Knows no peers: it cannot say which of them it is.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace caravan {

// Calls `on_late` on a thread of its own, once, unless it is destroyed before `limit` is over.
class StartLimit {
 public:
  StartLimit(std::chrono::seconds limit, std::function<void()> on_late);
  ~StartLimit() = default;  // asks the thread to end, and waits for it
  StartLimit(const StartLimit&) = delete;
  StartLimit& operator=(const StartLimit&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;  // last: it uses the others
};

}  // namespace caravan
