// Sums over rows in a fixed order: rows are cut into chunks by their number alone, each chunk has
// a row of partial sums, and those are added in order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/cpu/threads.h"

namespace caravan::cpu {

struct RowChunks {
  explicit RowChunks(int64_t num_rows)
      : rows(num_rows),
        rows_per_chunk(std::max<int64_t>(64, (num_rows + 63) / 64)),
        count((num_rows + rows_per_chunk - 1) / rows_per_chunk) {}

  int64_t begin(int64_t chunk) const { return chunk * rows_per_chunk; }
  int64_t end(int64_t chunk) const { return std::min(rows, begin(chunk) + rows_per_chunk); }

  int64_t rows;
  int64_t rows_per_chunk;
  int64_t count;  // at most 64
};

// partials (count, width) -> sums (width)
inline void sum_partials(const float* partials, int64_t count, int64_t width, float* sums,
                         const CpuThreads& threads) {
  threads.for_chunks(width, 1024, [=](int64_t begin, int64_t end) {
    std::fill(sums + begin, sums + end, 0.0f);
    for (int64_t chunk = 0; chunk < count; ++chunk) {
      const float* part = partials + chunk * width;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) sums[i] += part[i];
    }
  });
}

}  // namespace caravan::cpu
