// Causal attention, block by block with an online softmax (Dao et al., "FlashAttention", 2022).
#include <cmath>

#include "runtime/cpu/attention_blocks.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/cpu/simd.h"

namespace caravan::cpu {
namespace {

// Scratch of one thread; R rows, h head width.
struct Buffers {
  int32_t* token;  // (R)
  int32_t* start;  // (R)
  float* query;    // (R,h), scaled; then what is summed over values, not yet divided by `sum`
  float* packed_query;
  float* packed_values;
  float* scores;   // (keys, R)
  float* largest;  // (R) of the scores so far
  float* sum;      // (R) of exp(score - largest)
  float* factor;   // (R) by which the last chunk has scaled what was summed before
  float* panel;
};

int64_t buffer_bytes(const AttentionShape& s) {
  const int64_t rows = s.rows_per_block();
  return 2 * scratch_bytes<int32_t>(rows) + scratch_bytes<float>(rows * s.head_dim) +
         scratch_bytes<float>(packed_floats(rows, s.head_dim)) +
         scratch_bytes<float>(packed_floats(s.head_dim, kKeysPerChunk)) +
         scratch_bytes<float>(kKeysPerChunk * rows) + 3 * scratch_bytes<float>(rows) +
         scratch_bytes<float>(kPanelFloats);
}

Buffers take_buffers(const AttentionShape& s, Scratch& scratch) {
  const int64_t rows = s.rows_per_block();
  Buffers b{};
  b.token = scratch.take<int32_t>(rows);
  b.start = scratch.take<int32_t>(rows);
  b.query = scratch.take<float>(rows * s.head_dim);
  b.packed_query = scratch.take<float>(packed_floats(rows, s.head_dim));
  b.packed_values = scratch.take<float>(packed_floats(s.head_dim, kKeysPerChunk));
  b.scores = scratch.take<float>(kKeysPerChunk * rows);
  b.largest = scratch.take<float>(rows);
  b.sum = scratch.take<float>(rows);
  b.factor = scratch.take<float>(rows);
  b.panel = scratch.take<float>(kPanelFloats);
  return b;
}

// Turns scores into weights relative to the largest score so far.
void softmax(const KeyChunk& chunk, int64_t num_rows, const Buffers& b) {
  const int64_t first = chunk.first_row;
  float* const largest = b.largest;
  float* const factor = b.factor;
  float* const sum = b.sum;
  std::copy(largest + first, largest + num_rows, factor + first);
  for (int64_t j = 0; j < chunk.count; ++j) {
    const float* const scores = b.scores + j * num_rows;
#pragma omp simd
    for (int64_t r = first; r < num_rows; ++r) {
      largest[r] = scores[r] > largest[r] ? scores[r] : largest[r];
    }
  }
#pragma omp simd
  for (int64_t r = first; r < num_rows; ++r) {
    factor[r] = fast_exp_bounded(factor[r] - largest[r]);
    sum[r] *= factor[r];
  }
  for (int64_t j = 0; j < chunk.count; ++j) {
    float* const scores = b.scores + j * num_rows;
#pragma omp simd
    for (int64_t r = first; r < num_rows; ++r) {
      scores[r] = fast_exp_bounded(scores[r] - largest[r]);
      sum[r] += scores[r];
    }
  }
}

void add_values(const AttentionShape& s, const BlockRows& rows, const KeyChunk& chunk,
                const float* values, const Buffers& b, float* out) {
  const int64_t first = chunk.first_row;
  for (int64_t r = first; r < rows.count(); ++r) {
    if (b.factor[r] == 1.0f) continue;
#pragma omp simd
    for (int64_t i = 0; i < s.head_dim; ++i) out[r * s.head_dim + i] *= b.factor[r];
  }
  add_to_rows(s, rows, chunk, b.scores, {values, b.packed_values}, out, b.panel);
}

void finish(const AttentionShape& s, const BlockRows& rows, const Buffers& b, float* out,
            const KernelArgs& args) {
  for (int64_t r = 0; r < rows.count(); ++r) {
    args.outputs[1].as<float>()[rows.head_offset(r)] = b.largest[r] + std::log(b.sum[r]);
    const float factor = 1.0f / b.sum[r];
#pragma omp simd
    for (int64_t i = 0; i < s.head_dim; ++i) out[r * s.head_dim + i] *= factor;
  }
  rows.scatter(out, 1.0f, args.outputs[0].as<float>());
}

void forward_block(const AttentionShape& s, const AttentionBlock& block, const KernelArgs& args,
                   const Buffers& b) {
  const BlockRows rows(s, block, b.token, b.start);
  rows.gather(args.inputs[0].as<float>(), 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
              b.query);
  const PackedMatrix queries =
      pack({b.query, s.head_dim, true}, rows.count(), s.head_dim, b.packed_query);
  float* out = b.query;
  std::fill_n(out, rows.count() * s.head_dim, 0.0f);
  std::fill_n(b.largest, rows.count(), kLeastScore);
  std::fill_n(b.sum, rows.count(), 0.0f);
  KeyChunk chunk = rows.chunk_at(rows.first_key());
  for (; chunk.key < rows.last_key(); chunk = rows.chunk_at(chunk.key + chunk.count)) {
    const int64_t offset = rows.key_offset(chunk.key);
    multiply_keys(s, rows, chunk, args.inputs[1].as<float>() + offset, queries, b.scores, b.panel);
    rows.hide_unseen(chunk, kUnseen, b.scores);
    softmax(chunk, rows.count(), b);
    add_values(s, rows, chunk, args.inputs[2].as<float>() + offset, b, out);
  }
  finish(s, rows, b, out, args);
}

}  // namespace

int64_t workspace_bytes(const Attention& op, const WorkspaceQuery& query) {
  const AttentionShape s = attention_shape(op, query);
  return buffer_bytes(s) * query.num_threads;
}

void run(const Attention& op, const KernelArgs& args, const CpuThreads& threads) {
  const AttentionShape s = attention_shape(op, args);
  const ThreadScratch scratch(args, buffer_bytes(s), threads.count());
  const int64_t num_tasks = s.num_sequences * s.num_kv_heads * s.num_blocks();
  threads.for_each(num_tasks, [&](int64_t task, int thread) {
    Scratch own = scratch.of(thread);
    const int64_t head = task / s.num_blocks();
    const AttentionBlock block = block_at(s, head / s.num_kv_heads, head % s.num_kv_heads,
                                          task % s.num_blocks(), args.inputs[3].as<int32_t>());
    if (block.num_heads > 0) forward_block(s, block, args, take_buffers(s, own));
  });
}

}  // namespace caravan::cpu
