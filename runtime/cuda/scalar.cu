// Fill and Divide of scalars, and fills of memory.
#include "runtime/cuda/fill.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void fill_kernel(uint32_t* to, uint32_t word, int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    to[i] = word;
  }
}

__global__ void set_kernel(float* to, float value) { *to = value; }

__global__ void divide_kernel(const float* a, const float* b, float* out) {
  *out = *b == 0.0f ? 0.0f : *a / *b;
}

}  // namespace

void fill_words(void* device, uint32_t word, int64_t count, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(divide_up(count, kThreads), 4096));
  launch({blocks, kThreads}, stream, fill_kernel, static_cast<uint32_t*>(device), word, count);
}

void run(const Fill& op, const KernelArgs& args, const Queue& queue) {
  launch({1, 1}, queue.stream, set_kernel, args.outputs[0].as<float>(), op.value);
}

void run(const Divide&, const KernelArgs& args, const Queue& queue) {
  launch({1, 1}, queue.stream, divide_kernel, args.inputs[0].as<float>(),
         args.inputs[1].as<float>(), args.outputs[0].as<float>());
}

}  // namespace caravan::cuda
