// Fills device memory with a 32-bit pattern.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace caravan::cuda {

void fill_words(void* device, uint32_t word, int64_t count, cudaStream_t stream);

}  // namespace caravan::cuda
