// The one thread of a process that enters the HDF5 library while training runs: tasks are done in
// the order in which they come.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <thread>

namespace caravan {

class WriterThread {
 public:
  WriterThread();
  ~WriterThread();  // waits for the task that runs; drops those behind it
  WriterThread(const WriterThread&) = delete;
  WriterThread& operator=(const WriterThread&) = delete;

  // Any thread. What the task throws comes out of the future.
  template <typename Task>
  auto run(Task task) {
    auto packaged = std::make_shared<std::packaged_task<decltype(task())()>>(std::move(task));
    auto result = packaged->get_future();
    put([packaged] { (*packaged)(); });
    return result;
  }

 private:
  void put(std::function<void()> task);
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace caravan
