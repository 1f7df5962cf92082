// Projection to the vocabulary and cross-entropy, a chunk of tokens at a time: the logits of one
// chunk are all that is ever held.
#include <cmath>

#include "runtime/cpu/gemm.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/cpu/simd.h"
#include "runtime/error.h"

namespace caravan::cpu {
namespace {

// Logits of a chunk fill about 4 MiB, to stay in the last-level cache; below 64 tokens the product
// would wait for the weight's bytes.
int64_t tokens_per_chunk(int64_t num_tokens, int64_t vocab_size) {
  const int64_t fitting = (int64_t{1} << 20) / std::max<int64_t>(1, vocab_size);
  return std::min(num_tokens, std::max<int64_t>(64, fitting / 16 * 16));
}

struct Projection {
  const float* x;       // (T,D)
  const float* weight;  // (V,D)
  const int32_t* targets;
  int64_t num_tokens;
  int64_t width;       // D
  int64_t vocab_size;  // V
};

Projection projection(const KernelArgs& args) {
  return {.x = args.inputs[0].as<float>(),
          .weight = args.inputs[1].as<float>(),
          .targets = args.inputs[2].as<int32_t>(),
          .num_tokens = args.inputs[0].dim(0),
          .width = args.inputs[0].dim(1),
          .vocab_size = args.inputs[1].dim(0)};
}

void check_targets(const Projection& p) {
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    check(p.targets[t] >= -1 && p.targets[t] < p.vocab_size,
          "[linear_cross_entropy] target %d of token %d, vocabulary of %d", p.targets[t], t,
          p.vocab_size);
  }
}

// logits (end - begin, V) of the tokens [begin, end)
void compute_logits(const Projection& p, int64_t begin, int64_t end, float* logits,
                    const CpuThreads& threads) {
  const Gemm product{.transpose_b = true,
                     .m = end - begin,
                     .n = p.vocab_size,
                     .k = p.width,
                     .a = p.x + begin * p.width,
                     .lda = p.width,
                     .b = p.weight,
                     .ldb = p.width,
                     .c = logits,
                     .ldc = p.vocab_size};
  gemm(product, threads);
}

float log_sum_exp(const float* logits, int64_t n) {
  const float largest = max_of(logits, n);
  const double sum = blocked_sum(n, [=](int64_t i) { return fast_exp(logits[i] - largest); });
  return largest + static_cast<float>(std::log(sum));
}

int64_t logits_bytes(const WorkspaceQuery& query) {
  const int64_t vocab_size = query.inputs[1].shape[0];
  return scratch_bytes<float>(tokens_per_chunk(query.inputs[0].shape[0], vocab_size) * vocab_size);
}

}  // namespace

int64_t workspace_bytes(const LinearCrossEntropy&, const WorkspaceQuery& query) {
  return logits_bytes(query) + scratch_bytes<float>(query.inputs[0].shape[0]);
}

void run(const LinearCrossEntropy&, const KernelArgs& args, const CpuThreads& threads) {
  const Projection p = projection(args);
  check_targets(p);
  const int64_t chunk = tokens_per_chunk(p.num_tokens, p.vocab_size);
  Scratch scratch(args);
  float* logits = scratch.take<float>(chunk * p.vocab_size);
  float* target_logits = scratch.take<float>(p.num_tokens);
  float* lse = args.outputs[2].as<float>();
  for (int64_t first = 0; first < p.num_tokens; first += chunk) {
    const int64_t last = std::min(p.num_tokens, first + chunk);
    compute_logits(p, first, last, logits, threads);
    threads.for_chunks(last - first, 8, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* row_logits = logits + row * p.vocab_size;
        lse[first + row] = log_sum_exp(row_logits, p.vocab_size);
        const int32_t target = p.targets[first + row];
        target_logits[first + row] = target < 0 ? 0.0f : row_logits[target];
      }
    });
  }
  double loss_sum = 0;
  int64_t num_valid = 0;
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    if (p.targets[t] < 0) continue;
    loss_sum += static_cast<double>(lse[t]) - target_logits[t];
    ++num_valid;
  }
  *args.outputs[0].as<float>() = static_cast<float>(loss_sum);
  *args.outputs[1].as<float>() = static_cast<float>(num_valid);
}

namespace {

// In place: logits of one token -> dloss_sum * (softmax - one at the target), zero when padding.
void logits_gradient(float* logits, int64_t n, float lse, int32_t target, float dloss) {
  if (target < 0) {
    std::fill_n(logits, n, 0.0f);
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) logits[i] = dloss * fast_exp(logits[i] - lse);
  logits[target] -= dloss;
}

struct ProjectionGradients {
  float* dx;       // (T,D)
  float* dweight;  // (V,D)
};

// dx = dlogits weight for the tokens [begin, end); dweight += dlogits^T x.
void backpropagate(const Projection& p, int64_t begin, int64_t end, const float* dlogits,
                   const ProjectionGradients& gradients, const CpuThreads& threads) {
  const Gemm to_x{.m = end - begin,
                  .n = p.width,
                  .k = p.vocab_size,
                  .a = dlogits,
                  .lda = p.vocab_size,
                  .b = p.weight,
                  .ldb = p.width,
                  .c = gradients.dx + begin * p.width,
                  .ldc = p.width};
  gemm(to_x, threads);
  const Gemm to_weight{.transpose_a = true,
                       .m = p.vocab_size,
                       .n = p.width,
                       .k = end - begin,
                       .a = dlogits,
                       .lda = p.vocab_size,
                       .b = p.x + begin * p.width,
                       .ldb = p.width,
                       .accumulate = begin > 0,
                       .c = gradients.dweight,
                       .ldc = p.width};
  gemm(to_weight, threads);
}

}  // namespace

int64_t workspace_bytes(const LinearCrossEntropyGrad&, const WorkspaceQuery& query) {
  return logits_bytes(query);
}

void run(const LinearCrossEntropyGrad&, const KernelArgs& args, const CpuThreads& threads) {
  const Projection p = projection(args);
  check_targets(p);
  const float* lse = args.inputs[3].as<float>();
  const float dloss = *args.inputs[4].as<float>();
  const ProjectionGradients gradients{args.outputs[0].as<float>(), args.outputs[1].as<float>()};
  if (p.num_tokens == 0) std::fill_n(gradients.dweight, args.outputs[1].size(), 0.0f);
  const int64_t chunk = tokens_per_chunk(p.num_tokens, p.vocab_size);
  float* logits = Scratch(args).take<float>(chunk * p.vocab_size);
  for (int64_t first = 0; first < p.num_tokens; first += chunk) {
    const int64_t last = std::min(p.num_tokens, first + chunk);
    compute_logits(p, first, last, logits, threads);
    threads.for_chunks(last - first, 8, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t t = first + row;
        logits_gradient(logits + row * p.vocab_size, p.vocab_size, lse[t], p.targets[t], dloss);
      }
    });
    backpropagate(p, first, last, logits, gradients, threads);
  }
}

}  // namespace caravan::cpu
