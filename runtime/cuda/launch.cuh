// Starts kernels. Tests have a version of this file for the CPU, see tests/cuda_emulator.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <tuple>
#include <utility>

#include "runtime/cuda/check.h"

namespace caravan::cuda {

struct Grid {
  dim3 blocks;
  dim3 threads;
  int shared_bytes = 0;  // dynamic, of a block
};

// Of the block, 128-byte aligned.
template <typename T>
__device__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char caravan_shared[];
  return reinterpret_cast<T*>(caravan_shared);
}

// Puts kernel(arguments...) on the stream. An empty grid does nothing. A failure throws.
template <typename... Parameters, typename... Arguments>
void launch(const Grid& grid, cudaStream_t stream, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  std::array<void*, sizeof...(Parameters)> addresses;
  std::apply(
      [&](auto&... value) { addresses = {const_cast<void*>(static_cast<const void*>(&value))...}; },
      values);
  const auto* function = reinterpret_cast<const void*>(kernel);
  constexpr int kWithoutAsking = 48 << 10;
  if (grid.shared_bytes > kWithoutAsking) {
    check_cuda(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    grid.shared_bytes),
               "shared memory of a kernel");
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared_bytes);
  config.stream = stream;
  check_cuda(cudaLaunchKernelExC(&config, function, addresses.data()), "start of a kernel");
}

}  // namespace caravan::cuda
