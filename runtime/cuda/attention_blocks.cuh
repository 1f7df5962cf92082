// Which part of attention a block of threads works on.
//
// Grids are one-dimensional: heads side by side, so that those that read the same keys find them in
// the cache, then sequences, then tiles; the tiles with the most work begin first.
#pragma once

#include "runtime/cuda/attention_shape.h"
#include "runtime/cuda/reduce.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda {

// Some consecutive queries of one head, or keys of one key/value head.
struct AttentionTile {
  int head;
  int first;  // token in the sequence
  int count;
  int64_t sequence_start;  // token in the batch
};

inline int64_t num_tiles(const AttentionShape& s, int rows) {
  return divide_up(s.sequence_len, rows) * s.num_sequences;
}

// Tile `block` of those of `rows` rows each, of `num_heads` heads.
__device__ inline AttentionTile tile_of(const AttentionShape& s, int rows, int num_heads,
                                        int64_t block, bool last_first) {
  const int64_t rest = block / num_heads;
  const int per_sequence = (s.sequence_len + rows - 1) / rows;
  const int tile = static_cast<int>(rest / s.num_sequences);
  const int first = (last_first ? per_sequence - 1 - tile : tile) * rows;
  return {.head = static_cast<int>(block % num_heads),
          .first = first,
          .count = min(rows, s.sequence_len - first),
          .sequence_start = rest % s.num_sequences * s.sequence_len};
}
// Later queries see more keys.
__device__ inline AttentionTile query_tile(const AttentionShape& s, int rows, int64_t block) {
  return tile_of(s, rows, s.num_heads, block, true);
}
// Earlier keys are seen by more queries.
__device__ inline AttentionTile key_tile(const AttentionShape& s, int rows, int64_t block) {
  return tile_of(s, rows, s.num_kv_heads, block, false);
}

// Of the documents of a tile's queries: where the first and the last of them begin.
struct DocumentStarts {
  int least = 0;
  int most = 0;
};
// Every warp by itself. `document_start` is that of the batch.
__device__ inline DocumentStarts document_starts(const int32_t* document_start,
                                                 const AttentionTile& tile) {
  if (document_start == nullptr) return {};
  const int32_t* of_tile = document_start + tile.sequence_start + tile.first;
  DocumentStarts starts{of_tile[0], of_tile[0]};
  for (int i = static_cast<int>(threadIdx.x) % 32; i < tile.count; i += 32) {
    starts.least = min(starts.least, of_tile[i]);
    starts.most = max(starts.most, of_tile[i]);
  }
  for (int bits = 16; bits > 0; bits /= 2) {
    starts.least = min(starts.least, __shfl_xor_sync(kAllLanes, starts.least, bits));
    starts.most = max(starts.most, __shfl_xor_sync(kAllLanes, starts.most, bits));
  }
  return starts;
}

// One past the last query that sees any key of a tile. Reads what is told about all later queries
// once, which is little beside the products that follow. Every warp by itself.
__device__ inline int end_of_queries(const int32_t* document_start, const AttentionTile& keys,
                                     int sequence_len) {
  if (document_start == nullptr) return sequence_len;
  const int32_t* of_sequence = document_start + keys.sequence_start;
  const int last_key = keys.first + keys.count - 1;
  int end = keys.first + keys.count;
#pragma unroll 8
  for (int i = keys.first + static_cast<int>(threadIdx.x) % 32; i < sequence_len; i += 32) {
    if (of_sequence[i] <= last_key) end = max(end, i + 1);
  }
  for (int bits = 16; bits > 0; bits /= 2) {
    end = max(end, __shfl_xor_sync(kAllLanes, end, bits));
  }
  return end;
}

}  // namespace caravan::cuda
