// What attention and its gradient share: how queries are cut into blocks, and which of a chunk of
// keys they see.
//
// A block is a few consecutive query tokens with all query heads that read one key/value head; its
// rows are (token, head of the group). Scores lie transposed, (keys, rows): keys and values are the
// operands that products read where they are, and softmax runs over many rows at once.
#pragma once

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/cpu/gemm.h"
#include "runtime/cpu/kernels.h"

namespace caravan::cpu {

// A score that is not seen. The largest score of a row begins at kLeastScore, so that the weight of
// what is not seen is 0 from the first chunk on.
inline constexpr float kUnseen = -1e30f;
inline constexpr float kLeastScore = -5e29f;

inline constexpr int64_t kKeysPerChunk = 112;  // at most; the causal mask cuts smaller ones

struct AttentionShape {
  int64_t num_sequences;
  int64_t sequence_len;
  int64_t head_dim;
  int64_t num_heads;  // of queries
  int64_t num_kv_heads;
  int64_t group;             // query heads of a key/value head, some of which may be elsewhere
  int64_t first_head;        // of queries, counted from the first of key/value head 0
  int64_t tokens_per_block;  // the last block may have fewer

  int64_t query_width() const { return num_heads * head_dim; }   // row of q
  int64_t key_width() const { return num_kv_heads * head_dim; }  // row of k and v
  int64_t heads_per_block() const { return group < num_heads ? group : num_heads; }  // at most
  int64_t rows_per_block() const { return tokens_per_block * heads_per_block(); }
  int64_t num_blocks() const { return (sequence_len + tokens_per_block - 1) / tokens_per_block; }
};

// What an op works on: shapes of q and k, and what Attention and AttentionGrad say of them.
struct AttentionSizes {
  const Shape& q;
  const Shape& k;
  int64_t head_dim;
  int64_t sequence_len;
  int64_t group;
  int64_t query_begin = 0;  // columns of q and k that lie on ranks before this one
  int64_t key_begin = 0;
};
AttentionShape attention_shape(const AttentionSizes& sizes);

template <typename OpStruct>
AttentionShape attention_shape(const OpStruct& op, const WorkspaceQuery& query) {
  return attention_shape(
      {query.inputs[0].shape, query.inputs[1].shape, op.head_dim, op.sequence_len, op.group});
}
template <typename OpStruct>
AttentionShape attention_shape(const OpStruct& op, const KernelArgs& args) {
  const TensorView &q = args.inputs[0], &k = args.inputs[1];
  return attention_shape(
      {q.shape, k.shape, op.head_dim, op.sequence_len, op.group, q.begin(1), k.begin(1)});
}

// Tokens [first, last) of a sequence, with one key/value head and its query heads that are here.
struct AttentionBlock {
  int64_t sequence_start;  // first token of the sequence in the batch
  int64_t kv_head;
  int64_t first_head;  // of queries
  int64_t num_heads;   // may be none
  int64_t first;
  int64_t last;
  const int32_t* document_start;  // of the sequence's tokens
};

AttentionBlock block_at(const AttentionShape& shape, int64_t sequence, int64_t kv_head, int64_t i,
                        const int32_t* document_start);

// Keys [key, key + count) and the rows from `first_row` on, which are all that see any of them.
struct KeyChunk {
  int64_t key;
  int64_t count;
  int64_t first_row;  // a multiple of kMaxGemmColumns, so that packed rows can begin there
  bool is_masked;     // some of these rows do not see all of the keys
};

// One block on one thread, without memory of its own.
class BlockRows {
 public:
  // `token` and `start` have room for rows_per_block() numbers.
  BlockRows(const AttentionShape& shape, const AttentionBlock& block, int32_t* token,
            int32_t* start);

  int64_t count() const { return count_; }
  // (T, H*h) -> (rows, h), each times `factor`; and back
  void gather(const float* source, float factor, float* rows) const;
  void scatter(const float* rows, float factor, float* destination) const;
  // Of row r in an array (T, H), such as lse.
  int64_t head_offset(int64_t row) const;
  // Where `key` of the block's sequence and head lies in k, v and their gradients.
  int64_t key_offset(int64_t key) const;

  int64_t first_key() const { return first_key_; }
  int64_t last_key() const { return block_.last; }
  KeyChunk chunk_at(int64_t key) const;
  // scores (keys of the chunk, rows): `hidden` where the row does not see the key.
  void hide_unseen(const KeyChunk& chunk, float hidden, float* scores) const;

 private:
  const AttentionShape& shape_;
  AttentionBlock block_;
  int64_t count_;
  int64_t first_key_;
  int32_t last_start_;
  const int32_t* token_;  // of each row, within the sequence
  const int32_t* start_;  // of the document of each row
};

// scores (keys of the chunk, R) = keys (n,h) x transposed_rows (h,R), from the chunk's first row
// on.
void multiply_keys(const AttentionShape& shape, const BlockRows& rows, const KeyChunk& chunk,
                   const float* keys, const PackedMatrix& transposed_rows, float* scores,
                   float* panel);

// Keys or values of a chunk, (n,h), and where they can be packed.
struct ChunkOperand {
  const float* data;
  float* packed;  // packed_floats(h, kKeysPerChunk)
};
// sums (R,h) += scores^T (R,n) x operand (n,h), from the chunk's first row on.
void add_to_rows(const AttentionShape& shape, const BlockRows& rows, const KeyChunk& chunk,
                 const float* scores, const ChunkOperand& operand, float* sums, float* panel);

}  // namespace caravan::cpu
