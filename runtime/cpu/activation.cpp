// Elementwise ops. They wait for memory more than for arithmetic: chunks only spread them over
// threads.
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/simd.h"

namespace caravan::cpu {
namespace {

constexpr int64_t kChunk = 16384;  // elements of a task

}  // namespace

void run(const SwiGlu&, const KernelArgs& args, const CpuThreads& threads) {
  const float* gate = args.inputs[0].as<float>();
  const float* up = args.inputs[1].as<float>();
  float* y = args.outputs[0].as<float>();
  threads.for_chunks(args.outputs[0].size(), kChunk, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
  });
}

// d silu(g) / dg = s (1 + g (1 - s)) with s = sigmoid(g).
void run(const SwiGluGrad&, const KernelArgs& args, const CpuThreads& threads) {
  const float* gate = args.inputs[0].as<float>();
  const float* up = args.inputs[1].as<float>();
  const float* dy = args.inputs[2].as<float>();
  float* dgate = args.outputs[0].as<float>();
  float* dup = args.outputs[1].as<float>();
  threads.for_chunks(args.outputs[0].size(), kChunk, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float g = gate[i];
      const float s = sigmoid(g);
      dgate[i] = dy[i] * up[i] * s * (1.0f + g * (1.0f - s));
      dup[i] = dy[i] * g * s;
    }
  });
}

void run(const Add&, const KernelArgs& args, const CpuThreads& threads) {
  const float* a = args.inputs[0].as<float>();
  const float* b = args.inputs[1].as<float>();
  float* sum = args.outputs[0].as<float>();
  threads.for_chunks(args.outputs[0].size(), kChunk, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) sum[i] = a[i] + b[i];
  });
}

}  // namespace caravan::cpu
