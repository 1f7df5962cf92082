// Batches made ahead of time by one thread, so that a step does not wait for files. Knows neither
// files nor samples: a function fills batch k, for k = first, first + 1, ... without end.
//
// Threads: next() and wait_seconds() from one thread; `fill` runs on the prefetcher's own, up to
// `depth` batches ahead of the last one asked for. Batches are recycled: once each of the depth + 1
// has been filled, nothing is allocated any more.
// Errors: what `fill` throws for batch k is thrown by the next() that asks for batch k, and by
// every later one.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "data/batch.h"

namespace caravan {

class Prefetcher {
 public:
  // `fill(k, batch)` resizes the batch and fills all of it.
  using Fill = std::function<void(int64_t index, Batch& batch)>;

  Prefetcher(Fill fill, int64_t first, int depth);
  ~Prefetcher();  // waits for the batch that is being filled
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // The next batch; valid until the next call.
  const Batch& next();

  // Seconds that next() has waited for the thread so far.
  double wait_seconds() const { return wait_seconds_; }

 private:
  void run();
  Batch& slot(int64_t index);

  Fill fill_;
  std::vector<Batch> slots_;  // batch k lies in slot k % size
  double wait_seconds_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  int64_t next_fill_;   // batches before it are filled
  int64_t next_taken_;  // batches before it were given out; the last of them is in use
  bool stopping_ = false;
  std::exception_ptr error_;  // of batch next_fill_

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace caravan
