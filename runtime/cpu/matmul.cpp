// Matrix product, bias, and the gradient of the bias: sums over rows in fixed chunks. How a product
// is spread over threads is in gemm.cpp.
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/row_chunks.h"
#include "runtime/cpu/scratch.h"

namespace caravan::cpu {

int64_t workspace_bytes(const MatMul& op, const WorkspaceQuery& query) {
  const int64_t k = query.inputs[0].shape[op.transpose_a ? 0 : 1];
  return scratch_bytes<float>(gemm_scratch_floats(query.outputs[0].shape[1], k, query.num_threads));
}

void run(const MatMul& op, const KernelArgs& args, const CpuThreads& threads) {
  const TensorView& a = args.inputs[0];
  const TensorView& b = args.inputs[1];
  const TensorView& c = args.outputs[0];
  const Gemm product{.m = c.dim(0),
                     .n = c.dim(1),
                     .k = a.dim(op.transpose_a ? 0 : 1),
                     .a = {a.as<float>(), a.dim(1), op.transpose_a},
                     .b = {b.as<float>(), b.dim(1), op.transpose_b},
                     .addend = addend_of(op, args),
                     .ld_addend = c.dim(1),
                     .c = c.as<float>(),
                     .ldc = c.dim(1)};
  float* scratch =
      Scratch(args).take<float>(gemm_scratch_floats(product.n, product.k, threads.count()));
  gemm(product, scratch, threads);
}

void run(const AddBias&, const KernelArgs& args, const CpuThreads& threads) {
  const float* x = args.inputs[0].as<float>();
  const float* bias = args.inputs[1].as<float>();
  float* y = args.outputs[0].as<float>();
  const int64_t width = args.inputs[1].size();
  threads.for_chunks(args.inputs[0].dim(0), 64, [=](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) y[t * width + i] = x[t * width + i] + bias[i];
    }
  });
}

int64_t workspace_bytes(const SumRows&, const WorkspaceQuery& query) {
  const Shape& x = query.inputs[0].shape;
  return scratch_bytes<float>(RowChunks(x[0]).count * x[1]);
}

void run(const SumRows&, const KernelArgs& args, const CpuThreads& threads) {
  const float* x = args.inputs[0].as<float>();
  const int64_t width = args.inputs[0].dim(1);
  const RowChunks chunks(args.inputs[0].dim(0));
  float* partials = Scratch(args).take<float>(chunks.count * width);
  threads.for_each(chunks.count, [&](int64_t chunk, int) {
    float* sums = partials + chunk * width;
    std::fill_n(sums, width, 0.0f);
    for (int64_t t = chunks.begin(chunk); t < chunks.end(chunk); ++t) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sums[i] += x[t * width + i];
    }
  });
  sum_partials(partials, chunks.count, width, args.outputs[0].as<float>(), threads);
}

}  // namespace caravan::cpu
