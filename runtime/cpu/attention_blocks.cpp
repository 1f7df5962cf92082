#include "runtime/cpu/attention_blocks.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan::cpu {
namespace {

constexpr int64_t kRowsPerBlock = 256;  // scores of a block and a chunk fit a level 2 cache
// Half of the scores of such a chunk are computed in vain.
constexpr int64_t kKeysOnDiagonal = 2 * kMaxGemmRows;

}  // namespace

AttentionShape attention_shape(const AttentionSizes& sizes) {
  const auto& [q, k, head_dim, sequence_len, group, query_begin, key_begin] = sizes;
  check(q[0] % sequence_len == 0, "[attention] %d tokens are not sequences of %d", q[0],
        sequence_len);
  const int64_t skipped = query_begin - key_begin * group;  // columns of q
  const bool fits = skipped >= 0 && skipped + q[1] <= group * k[1];
  check(fits && q[1] % head_dim == 0 && k[1] % head_dim == 0,
        "[attention] q %s and k %s do not fit heads of width %d, %d for each of k", to_string(q),
        to_string(k), head_dim, group);
  AttentionShape shape{.num_sequences = q[0] / sequence_len,
                       .sequence_len = sequence_len,
                       .head_dim = head_dim,
                       .num_heads = q[1] / head_dim,
                       .num_kv_heads = k[1] / head_dim,
                       .group = group,
                       .first_head = skipped / head_dim,
                       .tokens_per_block = 0};
  const int64_t most =
      std::max<int64_t>(1, kRowsPerBlock / std::max<int64_t>(1, shape.heads_per_block()));
  const int64_t num_blocks = (sequence_len + most - 1) / most;
  shape.tokens_per_block = (sequence_len + num_blocks - 1) / num_blocks;
  return shape;
}

AttentionBlock block_at(const AttentionShape& shape, int64_t sequence, int64_t kv_head, int64_t i,
                        const int32_t* document_start) {
  const auto local = [&](int64_t head) {
    return std::clamp<int64_t>(head - shape.first_head, 0, shape.num_heads);
  };
  const int64_t first_head = local(kv_head * shape.group);
  return {.sequence_start = sequence * shape.sequence_len,
          .kv_head = kv_head,
          .first_head = first_head,
          .num_heads = local((kv_head + 1) * shape.group) - first_head,
          .first = i * shape.tokens_per_block,
          .last = std::min(shape.sequence_len, (i + 1) * shape.tokens_per_block),
          .document_start = document_start + sequence * shape.sequence_len};
}

BlockRows::BlockRows(const AttentionShape& shape, const AttentionBlock& block, int32_t* token,
                     int32_t* start)
    : shape_(shape),
      block_(block),
      count_((block.last - block.first) * block.num_heads),
      token_(token),
      start_(start) {
  for (int64_t row = 0; row < count_; ++row) {
    token[row] = static_cast<int32_t>(block.first + row / block.num_heads);
    start[row] = block.document_start[token[row]];
  }
  const auto [least, most] = std::minmax_element(start, start + count_);
  first_key_ = *least;
  last_start_ = *most;
}

void BlockRows::gather(const float* source, float factor, float* rows) const {
  const int64_t width = block_.num_heads * shape_.head_dim;
  for (int64_t t = 0; t < block_.last - block_.first; ++t) {
    const float* from = source + (block_.sequence_start + block_.first + t) * shape_.query_width() +
                        block_.first_head * shape_.head_dim;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) rows[t * width + i] = from[i] * factor;
  }
}

void BlockRows::scatter(const float* rows, float factor, float* destination) const {
  const int64_t width = block_.num_heads * shape_.head_dim;
  for (int64_t t = 0; t < block_.last - block_.first; ++t) {
    float* to = destination + (block_.sequence_start + block_.first + t) * shape_.query_width() +
                block_.first_head * shape_.head_dim;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) to[i] = rows[t * width + i] * factor;
  }
}

int64_t BlockRows::head_offset(int64_t row) const {
  const int64_t token = block_.sequence_start + token_[row];
  return token * shape_.num_heads + block_.first_head + row % block_.num_heads;
}

int64_t BlockRows::key_offset(int64_t key) const {
  return (block_.sequence_start + key) * shape_.key_width() + block_.kv_head * shape_.head_dim;
}

KeyChunk BlockRows::chunk_at(int64_t key) const {
  const int64_t count = key < block_.first ? std::min(kKeysPerChunk, block_.first - key)
                                           : std::min(kKeysOnDiagonal, block_.last - key);
  const int64_t first_row = std::max<int64_t>(0, key - block_.first) * block_.num_heads;
  return {.key = key,
          .count = count,
          .first_row = first_row / kMaxGemmColumns * kMaxGemmColumns,
          .is_masked = key + count > block_.first + 1 || key < last_start_};
}

void BlockRows::hide_unseen(const KeyChunk& chunk, float hidden, float* scores) const {
  if (!chunk.is_masked) return;
  const int32_t* const token = token_;
  const int32_t* const start = start_;
  const int64_t first = chunk.first_row, last = count_;
  for (int64_t j = 0; j < chunk.count; ++j) {
    float* const row = scores + j * last;
    const auto key = static_cast<int32_t>(chunk.key + j);
#pragma omp simd
    for (int64_t r = first; r < last; ++r) {
      const bool sees = start[r] <= key && key <= token[r];
      row[r] = sees ? row[r] : hidden;
    }
  }
}

void multiply_keys(const AttentionShape& s, const BlockRows& rows, const KeyChunk& chunk,
                   const float* keys, const PackedMatrix& transposed_rows, float* scores,
                   float* panel) {
  gemm_packed({.m = chunk.count,
               .n = rows.count() - chunk.first_row,
               .k = s.head_dim,
               .a = {keys, s.key_width()},
               .c = scores + chunk.first_row,
               .ldc = rows.count()},
              part_of(transposed_rows, 0, chunk.first_row), panel);
}

void add_to_rows(const AttentionShape& s, const BlockRows& rows, const KeyChunk& chunk,
                 const float* scores, const ChunkOperand& operand, float* sums, float* panel) {
  float* const first = sums + chunk.first_row * s.head_dim;
  gemm_packed({.m = rows.count() - chunk.first_row,
               .n = s.head_dim,
               .k = chunk.count,
               .a = {scores + chunk.first_row, rows.count(), true},
               .addend = first,
               .ld_addend = s.head_dim,
               .c = first,
               .ldc = s.head_dim},
              pack({operand.data, s.key_width()}, s.head_dim, chunk.count, operand.packed), panel);
}

}  // namespace caravan::cpu
