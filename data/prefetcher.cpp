#include "data/prefetcher.h"

#include <chrono>

#include "runtime/error.h"

namespace caravan {

Prefetcher::Prefetcher(Fill fill, int64_t first, int depth)
    : fill_(std::move(fill)),
      slots_(static_cast<size_t>(depth) + 1),
      next_fill_(first),
      next_taken_(first) {
  check(depth >= 1 && first >= 0, "prefetcher: first %d, depth %d", first, depth);
  thread_ = std::thread([this] { run(); });
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Batch& Prefetcher::slot(int64_t index) {
  return slots_[static_cast<size_t>(index) % slots_.size()];
}

void Prefetcher::run() {
  std::unique_lock lock(mutex_);
  // The slot of the batch in use, next_taken_ - 1, is not written to.
  const auto depth = static_cast<int64_t>(slots_.size()) - 1;
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || next_fill_ < next_taken_ + depth; });
    if (stopping_) return;
    const int64_t index = next_fill_;
    lock.unlock();
    std::exception_ptr error;
    try {
      fill_(index, slot(index));
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    error_ = error;
    if (error == nullptr) ++next_fill_;
    changed_.notify_all();
    if (error != nullptr) return;
  }
}

const Batch& Prefetcher::next() {
  using Clock = std::chrono::steady_clock;
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return next_taken_ < next_fill_ || error_ != nullptr; };
  if (!ready()) {
    const auto begin = Clock::now();
    changed_.wait(lock, ready);
    wait_seconds_ += std::chrono::duration<double>(Clock::now() - begin).count();
  }
  if (next_taken_ == next_fill_) std::rethrow_exception(error_);
  const int64_t index = next_taken_++;
  lock.unlock();
  changed_.notify_all();
  return slot(index);
}

}  // namespace caravan
