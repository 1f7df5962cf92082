// RMS norm, of rows or of single heads, and its gradient: rows are independent, the gradient of the
// weight is summed over rows in fixed chunks. Row sums are made in double every 512 terms.
#include <cmath>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/row_chunks.h"
#include "runtime/cpu/scratch.h"
#include "runtime/cpu/simd.h"

namespace caravan::cpu {

// Keeps rstd for the gradient, which is then without square roots.
void run(const RmsNorm& op, const KernelArgs& args, const CpuThreads& threads) {
  const float* weight = args.inputs[1].as<float>();
  const int64_t width = args.inputs[1].size();
  threads.for_chunks(args.inputs[0].dim(0), 32, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* x = args.inputs[0].as<float>() + t * width;
      float* y = args.outputs[0].as<float>() + t * width;
      const double sum = blocked_sum(width, [=](int64_t i) { return x[i] * x[i]; });
      const float rstd =
          static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(width) + op.eps));
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) y[i] = x[i] * rstd * weight[i];
      args.outputs[1].as<float>()[t] = rstd;
    }
  });
}

int64_t workspace_bytes(const RmsNormGrad&, const WorkspaceQuery& query) {
  const Shape& x = query.inputs[0].shape;
  return scratch_bytes<float>(RowChunks(x[0]).count * x[1]);
}

namespace {

struct NormGradRow {
  const float* x;
  const float* weight;
  float rstd;
  const float* dy;
  float* dx;
  float* dweight;       // added to
  const float* addend;  // of dx, null: none
  int64_t width;
};

// With n = x * rstd: dx = addend + rstd * (dy w - n * mean(dy w n)), dweight += dy n.
void norm_grad_row(const NormGradRow& row) {
  const auto [x, weight, rstd, dy, dx, dweight, addend, width] = row;
  const double sum = blocked_sum(
      width, [x = x, weight = weight, dy = dy](int64_t i) { return dy[i] * weight[i] * x[i]; });
  const float mean = static_cast<float>(sum / static_cast<double>(width)) * rstd;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float normalized = x[i] * rstd;
    const float before = addend == nullptr ? 0.0f : addend[i];
    dx[i] = before + rstd * (dy[i] * weight[i] - normalized * mean);
    dweight[i] += dy[i] * normalized;
  }
}

}  // namespace

void run(const RmsNormGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const float* addend = addend_of(op, args);
  const int64_t width = args.inputs[1].size();
  const RowChunks chunks(args.inputs[0].dim(0));
  float* partials = Scratch(args).take<float>(chunks.count * width);
  threads.for_each(chunks.count, [&](int64_t chunk, int) {
    float* dweight = partials + chunk * width;
    std::fill_n(dweight, width, 0.0f);
    for (int64_t t = chunks.begin(chunk); t < chunks.end(chunk); ++t) {
      norm_grad_row({.x = args.inputs[0].as<float>() + t * width,
                     .weight = args.inputs[1].as<float>(),
                     .rstd = args.inputs[2].as<float>()[t],
                     .dy = args.inputs[3].as<float>() + t * width,
                     .dx = args.outputs[0].as<float>() + t * width,
                     .dweight = dweight,
                     .addend = addend == nullptr ? nullptr : addend + t * width,
                     .width = width});
    }
  });
  sum_partials(partials, chunks.count, width, args.outputs[1].as<float>(), threads);
}

void run(const HeadNorm& op, const KernelArgs& args, const CpuThreads& threads) {
  const int64_t head_dim = op.head_dim;
  const int64_t heads = args.outputs[1].dim(1);
  const auto normalize = [&](int64_t head) {
    const float* x = args.inputs[0].as<float>() + head * head_dim;
    float* y = args.outputs[0].as<float>() + head * head_dim;
    const double sum = blocked_sum(head_dim, [=](int64_t i) { return x[i] * x[i]; });
    const float rstd =
        static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(head_dim) + op.eps));
#pragma omp simd
    for (int64_t i = 0; i < head_dim; ++i) y[i] = x[i] * rstd;
    args.outputs[1].as<float>()[head] = rstd;
  };
  threads.for_chunks(args.inputs[0].dim(0), 32, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin * heads; head < end * heads; ++head) normalize(head);
  });
}

// As in norm_grad_row, with weights of 1.
void run(const HeadNormGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const int64_t head_dim = op.head_dim;
  const int64_t heads = args.inputs[1].dim(1);
  const auto differentiate = [&](int64_t head) {
    const float* x = args.inputs[0].as<float>() + head * head_dim;
    const float rstd = args.inputs[1].as<float>()[head];
    const float* dy = args.inputs[2].as<float>() + head * head_dim;
    float* dx = args.outputs[0].as<float>() + head * head_dim;
    const double sum = blocked_sum(head_dim, [=](int64_t i) { return dy[i] * x[i]; });
    const float mean = static_cast<float>(sum / static_cast<double>(head_dim)) * rstd;
#pragma omp simd
    for (int64_t i = 0; i < head_dim; ++i) dx[i] = rstd * (dy[i] - x[i] * rstd * mean);
  };
  threads.for_chunks(args.inputs[0].dim(0), 32, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin * heads; head < end * heads; ++head) differentiate(head);
  });
}

}  // namespace caravan::cpu
