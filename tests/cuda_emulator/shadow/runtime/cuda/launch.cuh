// The emulator's version of runtime/cuda/launch.cuh: a launch is put on an emulated stream.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <tuple>

#include "runtime/cuda/check.h"
#include "tests/cuda_emulator/fibers.h"
#include "tests/cuda_emulator/streams.h"

namespace caravan::cuda {

struct Grid {
  dim3 blocks;
  dim3 threads;
  int shared_bytes = 0;
};

template <typename T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulator::shared_memory());
}

template <typename... Parameters, typename... Arguments>
void launch(const Grid& grid, cudaStream_t stream, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  emulator::put(stream, [grid, kernel, values] {
    emulator::run_grid(grid.blocks, grid.threads, static_cast<size_t>(grid.shared_bytes),
                       [&] { std::apply(kernel, values); });
  });
}

}  // namespace caravan::cuda
