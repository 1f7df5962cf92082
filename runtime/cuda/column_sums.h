// Sums of the columns of a matrix, which is how gradients of biases and norm weights end.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace caravan::cuda {

// partials (rows, columns) f32 -> sums (columns) f32, in an order that only the shape decides. Made
// for up to some thousand rows.
void sum_partials(const float* partials, int64_t rows, int64_t columns, float* sums,
                  cudaStream_t stream);

}  // namespace caravan::cuda
