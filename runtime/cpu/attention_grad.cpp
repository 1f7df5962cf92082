// The gradient of causal attention: weights are made again from lse, block by block (Dao et al.,
// "FlashAttention", 2022).
#include <cmath>

#include "runtime/cpu/attention_blocks.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/cpu/simd.h"

namespace caravan::cpu {
namespace {

// The rows of a block as both products want them: (R,h).
struct RowOperand {
  float* rows;
  float* packed;             // b of (keys,R) x (R,h)
  float* packed_transposed;  // b of (keys,h) x (h,R)
};

// Scratch of one thread; R rows, h head width.
struct Buffers {
  int32_t* token;    // (R)
  int32_t* start;    // (R)
  RowOperand query;  // scaled
  RowOperand dout;
  float* dquery;  // (R,h), not yet scaled
  float* packed_keys;
  float* weights;  // (keys,R)
  float* dscores;  // (keys,R)
  float* lse;      // (R)
  float* dot;      // (R) of out and dout: what the softmax takes off every dscore
  float* panel;
};

int64_t operand_bytes(const AttentionShape& s) {
  const int64_t rows = s.rows_per_block();
  return scratch_bytes<float>(rows * s.head_dim) +
         scratch_bytes<float>(packed_floats(s.head_dim, rows)) +
         scratch_bytes<float>(packed_floats(rows, s.head_dim));
}

RowOperand take_operand(const AttentionShape& s, Scratch& scratch) {
  const int64_t rows = s.rows_per_block();
  float* plain = scratch.take<float>(rows * s.head_dim);
  float* packed = scratch.take<float>(packed_floats(s.head_dim, rows));
  return {plain, packed, scratch.take<float>(packed_floats(rows, s.head_dim))};
}

int64_t buffer_bytes(const AttentionShape& s) {
  const int64_t rows = s.rows_per_block();
  return 2 * scratch_bytes<int32_t>(rows) + 2 * operand_bytes(s) +
         scratch_bytes<float>(rows * s.head_dim) +
         scratch_bytes<float>(packed_floats(s.head_dim, kKeysPerChunk)) +
         2 * scratch_bytes<float>(kKeysPerChunk * rows) + 2 * scratch_bytes<float>(rows) +
         scratch_bytes<float>(kPanelFloats);
}

Buffers take_buffers(const AttentionShape& s, Scratch& scratch) {
  const int64_t rows = s.rows_per_block();
  Buffers b{};
  b.token = scratch.take<int32_t>(rows);
  b.start = scratch.take<int32_t>(rows);
  b.query = take_operand(s, scratch);
  b.dout = take_operand(s, scratch);
  b.dquery = scratch.take<float>(rows * s.head_dim);
  b.packed_keys = scratch.take<float>(packed_floats(s.head_dim, kKeysPerChunk));
  b.weights = scratch.take<float>(kKeysPerChunk * rows);
  b.dscores = scratch.take<float>(kKeysPerChunk * rows);
  b.lse = scratch.take<float>(rows);
  b.dot = scratch.take<float>(rows);
  b.panel = scratch.take<float>(kPanelFloats);
  return b;
}

// q, k, v, document_start, out, lse, dout -> dq, dk, dv
struct Tensors {
  explicit Tensors(const KernelArgs& args)
      : q(args.inputs[0].as<float>()),
        k(args.inputs[1].as<float>()),
        v(args.inputs[2].as<float>()),
        out(args.inputs[4].as<float>()),
        lse(args.inputs[5].as<float>()),
        dout(args.inputs[6].as<float>()),
        dq(args.outputs[0].as<float>()),
        dk(args.outputs[1].as<float>()),
        dv(args.outputs[2].as<float>()) {}

  const float* q;
  const float* k;
  const float* v;
  const float* out;
  const float* lse;
  const float* dout;
  float* dq;
  float* dk;
  float* dv;
};

struct PackedRows {
  PackedMatrix plain;
  PackedMatrix transposed;
};

PackedRows pack_rows(const AttentionShape& s, const BlockRows& rows, const RowOperand& operand) {
  return {
      pack({operand.rows, s.head_dim}, s.head_dim, rows.count(), operand.packed),
      pack({operand.rows, s.head_dim, true}, rows.count(), s.head_dim, operand.packed_transposed)};
}

// lse and dot of the rows.
void read_statistics(const AttentionShape& s, const BlockRows& rows, const Tensors& tensors,
                     const Buffers& b) {
  for (int64_t r = 0; r < rows.count(); ++r) {
    const float* out = tensors.out + rows.head_offset(r) * s.head_dim;
    const float* dout = b.dout.rows + r * s.head_dim;
    b.dot[r] =
        static_cast<float>(blocked_sum(s.head_dim, [=](int64_t i) { return out[i] * dout[i]; }));
    b.lse[r] = tensors.lse[rows.head_offset(r)];
  }
}

// scores -> weights = exp(score - lse); gradients of weights -> of scores.
void softmax_gradient(const KeyChunk& chunk, int64_t num_rows, const Buffers& b) {
  const float* const lse = b.lse;
  const float* const dot = b.dot;
  for (int64_t j = 0; j < chunk.count; ++j) {
    float* const weights = b.weights + j * num_rows;
    float* const dscores = b.dscores + j * num_rows;
#pragma omp simd
    for (int64_t r = chunk.first_row; r < num_rows; ++r) {
      weights[r] = fast_exp_bounded(weights[r] - lse[r]);
      dscores[r] = weights[r] * (dscores[r] - dot[r]);
    }
  }
}

// keys (n,h) += scores (n,R) x (R,h)
void add_to_keys(const AttentionShape& s, const BlockRows& rows, const KeyChunk& chunk,
                 const float* scores, const PackedMatrix& packed_rows, float* keys, float* panel) {
  gemm_packed({.m = chunk.count,
               .n = s.head_dim,
               .k = rows.count() - chunk.first_row,
               .a = {scores + chunk.first_row, rows.count()},
               .addend = keys,
               .ld_addend = s.key_width(),
               .c = keys,
               .ldc = s.key_width()},
              part_of(packed_rows, chunk.first_row, 0), panel);
}

void backward_block(const AttentionShape& s, const AttentionBlock& block, const Tensors& tensors,
                    const Buffers& b) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  const BlockRows rows(s, block, b.token, b.start);
  rows.gather(tensors.q, scale, b.query.rows);
  rows.gather(tensors.dout, 1.0f, b.dout.rows);
  const PackedRows query = pack_rows(s, rows, b.query);
  const PackedRows dout = pack_rows(s, rows, b.dout);
  read_statistics(s, rows, tensors, b);
  std::fill_n(b.dquery, rows.count() * s.head_dim, 0.0f);
  KeyChunk chunk = rows.chunk_at(rows.first_key());
  for (; chunk.key < rows.last_key(); chunk = rows.chunk_at(chunk.key + chunk.count)) {
    const int64_t at = rows.key_offset(chunk.key);
    multiply_keys(s, rows, chunk, tensors.k + at, query.transposed, b.weights, b.panel);
    multiply_keys(s, rows, chunk, tensors.v + at, dout.transposed, b.dscores, b.panel);
    rows.hide_unseen(chunk, kUnseen, b.weights);  // their weights become 0
    softmax_gradient(chunk, rows.count(), b);
    add_to_keys(s, rows, chunk, b.weights, dout.plain, tensors.dv + at, b.panel);
    add_to_keys(s, rows, chunk, b.dscores, query.plain, tensors.dk + at, b.panel);
    add_to_rows(s, rows, chunk, b.dscores, {tensors.k + at, b.packed_keys}, b.dquery, b.panel);
  }
  rows.scatter(b.dquery, scale, tensors.dq);
}

void fill_zero(const AttentionShape& s, int64_t sequence, int64_t kv_head, float* keys) {
  float* first = keys + sequence * s.sequence_len * s.key_width() + kv_head * s.head_dim;
  for (int64_t key = 0; key < s.sequence_len; ++key) {
    std::fill_n(first + key * s.key_width(), s.head_dim, 0.0f);
  }
}

}  // namespace

int64_t workspace_bytes(const AttentionGrad& op, const WorkspaceQuery& query) {
  const AttentionShape s = attention_shape(op, query);
  return buffer_bytes(s) * query.num_threads;
}

// A task has a key/value head of one sequence to itself, so dk and dv are summed in block order
// where they lie.
void run(const AttentionGrad& op, const KernelArgs& args, const CpuThreads& threads) {
  const AttentionShape s = attention_shape(op, args);
  const Tensors tensors(args);
  const ThreadScratch scratch(args, buffer_bytes(s), threads.count());
  threads.for_each(s.num_sequences * s.num_kv_heads, [&](int64_t task, int thread) {
    Scratch own = scratch.of(thread);
    const Buffers buffers = take_buffers(s, own);
    const int64_t sequence = task / s.num_kv_heads, kv_head = task % s.num_kv_heads;
    fill_zero(s, sequence, kv_head, tensors.dk);
    fill_zero(s, sequence, kv_head, tensors.dv);
    for (int64_t i = 0; i < s.num_blocks(); ++i) {
      const AttentionBlock block = block_at(s, sequence, kv_head, i, args.inputs[3].as<int32_t>());
      if (block.num_heads > 0) backward_block(s, block, tensors, buffers);
    }
  });
}

}  // namespace caravan::cpu
