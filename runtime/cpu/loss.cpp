// Projection to the vocabulary and cross-entropy, a chunk of tokens at a time: the logits of one
// chunk are all that is ever held. They lie transposed, (V, tokens): the weight is then the operand
// that products read as it is, and softmax runs over many tokens at once.
#include <cmath>
#include <limits>

#include "runtime/cpu/gemm.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/cpu/simd.h"
#include "runtime/error.h"

namespace caravan::cpu {
namespace {

// Every chunk reads the whole weight: at least 256 tokens share that. More where the logits fit a
// last-level cache.
constexpr int64_t kMinTokens = 256;
constexpr int64_t kMaxTokens = 1024;
constexpr int64_t kCachedLogits = 1 << 20;
constexpr int64_t kGroup = 32;  // tokens that softmax handles together

int64_t tokens_per_chunk(int64_t num_tokens, int64_t vocab_size) {
  const int64_t fitting = kCachedLogits / std::max<int64_t>(1, vocab_size) / kGroup * kGroup;
  return std::min(num_tokens, std::clamp(fitting, kMinTokens, kMaxTokens));
}

struct Projection {
  const float* x;       // (T,D)
  const float* weight;  // (V,D)
  const int32_t* targets;
  int64_t num_tokens;
  int64_t width;       // D
  int64_t vocab_size;  // V, the rows of weight that are here
  int64_t first;       // of them in the whole vocabulary
};

Projection projection(const KernelArgs& args) {
  const Projection p{.x = args.inputs[0].as<float>(),
                     .weight = args.inputs[1].as<float>(),
                     .targets = args.inputs[2].as<int32_t>(),
                     .num_tokens = args.inputs[0].dim(0),
                     .width = args.inputs[0].dim(1),
                     .vocab_size = args.inputs[1].dim(0),
                     .first = args.inputs[1].begin(0)};
  const int64_t whole = args.inputs[1].whole_dim(0);
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    check(p.targets[t] >= -1 && p.targets[t] < whole,
          "[linear_cross_entropy] target %d of token %d, vocabulary of %d", p.targets[t], t, whole);
  }
  return p;
}

// Of the scratch arrays, in floats.
struct BufferSizes {
  int64_t logits;  // (V, tokens of a chunk)
  int64_t losses;  // (T)
  int64_t gemm;
};

struct LossShape {
  int64_t num_tokens;
  int64_t width;
  int64_t vocab_size;
  int num_threads;
  bool with_gradients;
};

BufferSizes buffer_sizes(const LossShape& s) {
  const int64_t chunk = tokens_per_chunk(s.num_tokens, s.vocab_size);
  int64_t gemm = gemm_scratch_floats(chunk, s.width, s.num_threads);
  if (s.with_gradients) {
    gemm = std::max({gemm, gemm_scratch_floats(s.width, s.vocab_size, s.num_threads),
                     gemm_scratch_floats(s.width, chunk, s.num_threads)});
  }
  return {chunk * s.vocab_size, s.num_tokens, gemm};
}

int64_t buffer_bytes(const WorkspaceQuery& query, bool with_gradients) {
  const Shape& weight = query.inputs[1].shape;
  const BufferSizes sizes = buffer_sizes(
      {query.inputs[0].shape[0], weight[1], weight[0], query.num_threads, with_gradients});
  return scratch_bytes<float>(sizes.logits) + scratch_bytes<float>(sizes.losses) +
         scratch_bytes<float>(sizes.gemm);
}

struct Buffers {
  float* logits;
  float* losses;
  float* gemm;
};

Buffers take_buffers(const KernelArgs& args, const LossShape& shape) {
  const BufferSizes sizes = buffer_sizes(shape);
  Scratch scratch(args);
  float* logits = scratch.take<float>(sizes.logits);
  float* losses = scratch.take<float>(sizes.losses);
  return {logits, losses, scratch.take<float>(sizes.gemm)};
}

// Tokens [first, first + count); their logits are (V, count).
struct Chunk {
  int64_t first;
  int64_t count;
};

void compute_logits(const Projection& p, const Chunk& chunk, const Buffers& buffers,
                    const CpuThreads& threads) {
  const Gemm product{.m = p.vocab_size,
                     .n = chunk.count,
                     .k = p.width,
                     .a = {p.weight, p.width},
                     .b = {p.x + chunk.first * p.width, p.width, true},
                     .c = buffers.logits,
                     .ldc = chunk.count};
  gemm(product, buffers.gemm, threads);
}

// Up to kGroup tokens of a chunk: element v of token t is at[v * ld + t].
struct Group {
  float* at;
  int64_t ld;
  int64_t count;
  int64_t vocab_size;
};

// log(sum of exp) of each token in one pass: sums are relative to the largest logit so far
// (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018).
void log_sum_exp(const Group& group, float* lse) {
  constexpr int64_t kRows = 128;  // x kGroup floats stay in a level 1 cache
  float largest[kGroup];
  double sum[kGroup] = {};
  std::fill_n(largest, kGroup, std::numeric_limits<float>::lowest());
  for (int64_t begin = 0; begin < group.vocab_size; begin += kRows) {
    const int64_t end = std::min(group.vocab_size, begin + kRows);
    float before[kGroup];
    float part[kGroup] = {};
    std::copy_n(largest, kGroup, before);
    for (int64_t v = begin; v < end; ++v) {
#pragma omp simd
      for (int64_t t = 0; t < group.count; ++t) {
        const float logit = group.at[v * group.ld + t];
        largest[t] = logit > largest[t] ? logit : largest[t];
      }
    }
    for (int64_t v = begin; v < end; ++v) {
#pragma omp simd
      for (int64_t t = 0; t < group.count; ++t) {
        part[t] += fast_exp_bounded(group.at[v * group.ld + t] - largest[t]);
      }
    }
    for (int64_t t = 0; t < group.count; ++t) {
      sum[t] = sum[t] * fast_exp_bounded(before[t] - largest[t]) + part[t];
    }
  }
  for (int64_t t = 0; t < group.count; ++t) {
    lse[t] = largest[t] + static_cast<float>(std::log(sum[t]));
  }
}

struct Targets {
  const int32_t* of;  // of the group's tokens
  int64_t first;      // of the vocabulary's rows that are here
  // The row of token t; -1 where it does not count or is not here.
  int64_t row(int64_t t, int64_t num_rows) const {
    const int64_t row = of[t] - first;
    return of[t] >= 0 && row >= 0 && row < num_rows ? row : -1;
  }
};

// In place: logits -> dloss * (softmax - one at the target); zero for tokens that do not count.
void logits_to_gradient(const Group& group, const float* lse, const Targets& targets, float dloss) {
  float factor[kGroup];
  for (int64_t t = 0; t < group.count; ++t) factor[t] = targets.of[t] < 0 ? 0.0f : dloss;
  for (int64_t v = 0; v < group.vocab_size; ++v) {
    float* row = group.at + v * group.ld;
#pragma omp simd
    for (int64_t t = 0; t < group.count; ++t)
      row[t] = factor[t] * fast_exp_bounded(row[t] - lse[t]);
  }
  for (int64_t t = 0; t < group.count; ++t) {
    const int64_t row = targets.row(t, group.vocab_size);
    if (row >= 0) group.at[row * group.ld + t] -= dloss;
  }
}

// Fills the losses of the chunk's tokens; with `dloss` the logits become their gradient.
void softmax(const Projection& p, const Chunk& chunk, const Buffers& buffers, const float* dloss,
             const CpuThreads& threads) {
  threads.for_chunks(chunk.count, kGroup, [&](int64_t begin, int64_t end) {
    const Group group{buffers.logits + begin, chunk.count, end - begin, p.vocab_size};
    const int32_t* targets = p.targets + chunk.first + begin;
    float lse[kGroup];
    log_sum_exp(group, lse);
    float* losses = buffers.losses + chunk.first + begin;
    for (int64_t t = 0; t < group.count; ++t) {
      losses[t] = targets[t] < 0 ? 0.0f : lse[t] - group.at[targets[t] * group.ld + t];
    }
    if (dloss != nullptr) logits_to_gradient(group, lse, {targets, 0}, *dloss);
  });
}

void sum_losses(const Projection& p, const Buffers& buffers, const KernelArgs& args) {
  double loss_sum = 0;
  int64_t num_valid = 0;
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    if (p.targets[t] < 0) continue;
    loss_sum += buffers.losses[t];
    ++num_valid;
  }
  *args.outputs[0].as<float>() = static_cast<float>(loss_sum);
  *args.outputs[1].as<float>() = static_cast<float>(num_valid);
}

template <typename EachChunk>
void for_chunks_of(const Projection& p, const EachChunk& each) {
  const int64_t chunk = tokens_per_chunk(p.num_tokens, p.vocab_size);
  for (int64_t first = 0; first < p.num_tokens; first += chunk) {
    each(Chunk{first, std::min(chunk, p.num_tokens - first)});
  }
}

struct Gradients {
  float* dx;       // (T,D)
  float* dweight;  // (V,D)
};

// dx = dlogits weight for the tokens of the chunk; dweight += dlogits^T x.
void backpropagate(const Projection& p, const Chunk& chunk, const Buffers& buffers,
                   const Gradients& gradients, const CpuThreads& threads) {
  const Gemm to_x{.m = chunk.count,
                  .n = p.width,
                  .k = p.vocab_size,
                  .a = {buffers.logits, chunk.count, true},
                  .b = {p.weight, p.width},
                  .c = gradients.dx + chunk.first * p.width,
                  .ldc = p.width};
  gemm(to_x, buffers.gemm, threads);
  const Gemm to_weight{.m = p.vocab_size,
                       .n = p.width,
                       .k = chunk.count,
                       .a = {buffers.logits, chunk.count},
                       .b = {p.x + chunk.first * p.width, p.width},
                       .addend = chunk.first > 0 ? gradients.dweight : nullptr,
                       .ld_addend = p.width,
                       .c = gradients.dweight,
                       .ldc = p.width};
  gemm(to_weight, buffers.gemm, threads);
}

}  // namespace

int64_t workspace_bytes(const LinearCrossEntropy&, const WorkspaceQuery& query) {
  return buffer_bytes(query, false);
}

namespace {

// Of ops that know no other ranks: expand_loss has replaced them where others have rows, too.
void check_whole(const TensorView& weight) {
  check(weight.dim(0) == weight.whole_dim(0), "[linear_cross_entropy] has %d of %d rows",
        weight.dim(0), weight.whole_dim(0));
}

}  // namespace

void run(const LinearCrossEntropy&, const KernelArgs& args, const CpuThreads& threads) {
  check_whole(args.inputs[1]);
  const Projection p = projection(args);
  const Buffers buffers =
      take_buffers(args, {p.num_tokens, p.width, p.vocab_size, threads.count(), false});
  for_chunks_of(p, [&](const Chunk& chunk) {
    compute_logits(p, chunk, buffers, threads);
    softmax(p, chunk, buffers, nullptr, threads);
  });
  sum_losses(p, buffers, args);
}

int64_t workspace_bytes(const LinearCrossEntropyGrad&, const WorkspaceQuery& query) {
  return buffer_bytes(query, true);
}

void run(const LinearCrossEntropyGrad&, const KernelArgs& args, const CpuThreads& threads) {
  check_whole(args.inputs[1]);
  const Projection p = projection(args);
  const Buffers buffers =
      take_buffers(args, {p.num_tokens, p.width, p.vocab_size, threads.count(), true});
  const float dloss = *args.inputs[3].as<float>();
  const Gradients gradients{args.outputs[2].as<float>(), args.outputs[3].as<float>()};
  if (p.num_tokens == 0) std::fill_n(gradients.dweight, args.outputs[3].size(), 0.0f);
  for_chunks_of(p, [&](const Chunk& chunk) {
    compute_logits(p, chunk, buffers, threads);
    softmax(p, chunk, buffers, &dloss, threads);
    backpropagate(p, chunk, buffers, gradients, threads);
  });
  sum_losses(p, buffers, args);
}

// --- where ranks share the vocabulary ------------------------------------------------------------

int64_t workspace_bytes(const CrossEntropyPart&, const WorkspaceQuery& query) {
  return buffer_bytes(query, false);
}

void run(const CrossEntropyPart&, const KernelArgs& args, const CpuThreads& threads) {
  const Projection p = projection(args);
  const Buffers buffers =
      take_buffers(args, {p.num_tokens, p.width, p.vocab_size, threads.count(), false});
  float* const lse = args.outputs[0].as<float>();
  float* const target_logits = lse + p.num_tokens;
  for_chunks_of(p, [&](const Chunk& chunk) {
    compute_logits(p, chunk, buffers, threads);
    threads.for_chunks(chunk.count, kGroup, [&](int64_t begin, int64_t end) {
      const Group group{buffers.logits + begin, chunk.count, end - begin, p.vocab_size};
      const int64_t first = chunk.first + begin;
      const Targets targets{p.targets + first, p.first};
      log_sum_exp(group, lse + first);
      for (int64_t t = 0; t < group.count; ++t) {
        const int64_t row = targets.row(t, group.vocab_size);
        target_logits[first + t] = row < 0 ? 0.0f : group.at[row * group.ld + t];
      }
    });
  });
}

namespace {

// parts (P,2,T): log-sum-exps and logits of targets.
struct Parts {
  const float* at;
  int64_t count;
  int64_t num_tokens;

  float lse(int64_t part, int64_t t) const { return at[2 * part * num_tokens + t]; }
  float logit(int64_t t) const {  // all but one are 0
    float sum = 0;
    for (int64_t part = 0; part < count; ++part) sum += at[(2 * part + 1) * num_tokens + t];
    return sum;
  }
  // Relative to the largest: a rank without rows has -inf.
  float merged_lse(int64_t t) const {
    float largest = std::numeric_limits<float>::lowest();
    for (int64_t part = 0; part < count; ++part) largest = std::max(largest, lse(part, t));
    double sum = 0;
    for (int64_t part = 0; part < count; ++part) sum += std::exp(double{lse(part, t)} - largest);
    return largest + static_cast<float>(std::log(sum));
  }
};

}  // namespace

// Sums in token order, so that they have the same bits on every rank.
void run(const MergeCrossEntropy&, const KernelArgs& args, const CpuThreads& threads) {
  const int32_t* const targets = args.inputs[1].as<int32_t>();
  const Parts parts{args.inputs[0].as<float>(), args.inputs[0].dim(0), args.inputs[1].size()};
  float* const lse = args.outputs[0].as<float>();
  threads.for_chunks(parts.num_tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) lse[t] = parts.merged_lse(t);
  });
  double loss_sum = 0;
  int64_t num_valid = 0;
  for (int64_t t = 0; t < parts.num_tokens; ++t) {
    if (targets[t] < 0) continue;
    loss_sum += lse[t] - parts.logit(t);
    ++num_valid;
  }
  *args.outputs[1].as<float>() = static_cast<float>(loss_sum);
  *args.outputs[2].as<float>() = static_cast<float>(num_valid);
}

int64_t workspace_bytes(const CrossEntropyPartGrad&, const WorkspaceQuery& query) {
  return buffer_bytes(query, true);
}

void run(const CrossEntropyPartGrad&, const KernelArgs& args, const CpuThreads& threads) {
  const Projection p = projection(args);
  const Buffers buffers =
      take_buffers(args, {p.num_tokens, p.width, p.vocab_size, threads.count(), true});
  const float* const lse = args.inputs[3].as<float>();
  const float dloss = *args.inputs[4].as<float>();
  const Gradients gradients{args.outputs[0].as<float>(), args.outputs[1].as<float>()};
  if (p.num_tokens == 0) std::fill_n(gradients.dweight, args.outputs[1].size(), 0.0f);
  for_chunks_of(p, [&](const Chunk& chunk) {
    compute_logits(p, chunk, buffers, threads);
    threads.for_chunks(chunk.count, kGroup, [&](int64_t begin, int64_t end) {
      const Group group{buffers.logits + begin, chunk.count, end - begin, p.vocab_size};
      const int64_t first = chunk.first + begin;
      logits_to_gradient(group, lse + first, {p.targets + first, p.first}, dloss);
    });
    backpropagate(p, chunk, buffers, gradients, threads);
  });
}

}  // namespace caravan::cpu
