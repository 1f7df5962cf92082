// Sums and maxima over the threads of a warp and of a block, in a fixed order.
#pragma once

#include <cuda_runtime.h>

namespace caravan::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
  static constexpr float kNeutral = 0.0f;
};
struct Max {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
  static constexpr float kNeutral = -3.402823466e38f;
};

// Every lane gets the result of all lanes.
template <typename Operation>
__device__ inline float reduce_warp(float value, Operation operation) {
  for (int bits = 16; bits > 0; bits /= 2) {
    value = operation(value, __shfl_xor_sync(kAllLanes, value, bits));
  }
  return value;
}

// Every thread gets the result of all threads; the block has a multiple of 32 and at most 1024.
// Contains barriers: all threads of the block call it.
template <typename Operation>
__device__ inline float reduce_block(float value, Operation operation) {
  __shared__ float of_warps[32];
  const int thread = static_cast<int>(threadIdx.x);
  const int num_warps = static_cast<int>(blockDim.x) / 32;
  value = reduce_warp(value, operation);
  __syncthreads();  // the last call's results have been read
  if (thread % 32 == 0) of_warps[thread / 32] = value;
  __syncthreads();
  value = thread % 32 < num_warps ? of_warps[thread % 32] : Operation::kNeutral;
  return reduce_warp(value, operation);
}

}  // namespace caravan::cuda
