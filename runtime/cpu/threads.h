// The threads of the compute stream: tasks numbered 0..n-1, spread over OpenMP threads.
//
// Kernels cut their work into tasks by shape, never by the number of threads, so that the bits of
// a result do not depend on it. Not for the communication thread.
#pragma once

#include <omp.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace caravan::cpu {

// Denormals become zero on this thread, as inputs and as results: they cost up to a hundred cycles
// each and carry nothing that training needs.
inline void flush_denormals() {
  constexpr unsigned kFlushToZero = 0x8000;
  constexpr unsigned kDenormalsAreZero = 0x0040;
  _mm_setcsr(_mm_getcsr() | kFlushToZero | kDenormalsAreZero);
}

class CpuThreads {
 public:
  explicit CpuThreads(int count) : count_(std::max(1, count)) {}
  int count() const { return count_; }

  // body(task, thread) for every task in [0, num_tasks), thread in [0, count()). Each thread takes
  // the next task when it is free; the first exception is rethrown here.
  template <typename Body>
  void for_each(int64_t num_tasks, const Body& body) const;

  // body(begin, end) over [0, size) in chunks.
  template <typename Body>
  void for_chunks(int64_t size, int64_t chunk, const Body& body) const {
    for_each((size + chunk - 1) / chunk,
             [&](int64_t task, int) { body(task * chunk, std::min(size, (task + 1) * chunk)); });
  }

 private:
  int count_;
};

template <typename Body>
void CpuThreads::for_each(int64_t num_tasks, const Body& body) const {
  if (count_ == 1 || num_tasks <= 1) {
    flush_denormals();
    for (int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(count_)
  {
    flush_denormals();
    const int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < num_tasks; ++task) {
      try {
        body(task, thread);
      } catch (...) {
#pragma omp critical(caravan_cpu_error)
        if (!error) error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace caravan::cpu
