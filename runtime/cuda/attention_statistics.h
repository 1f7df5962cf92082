// Statistics of attention in the order that a library has them: cuDNN's backward reads (B,H,S)
// only, ours are (T,H) = (B,S,H).
#pragma once

#include <cuda_runtime_api.h>

namespace caravan::cuda {

struct StatisticsShape {
  int batches;
  int rows;
  int columns;
};
// to (batches, columns, rows) = from (batches, rows, columns).
void transpose_statistics(float* to, const float* from, const StatisticsShape& shape,
                          cudaStream_t stream);

}  // namespace caravan::cuda
