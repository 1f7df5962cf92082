// Causal attention, tile by tile with an online softmax (Dao et al., "FlashAttention", 2022).
//
// A block has a tile of queries of one head and walks over the keys that any of them sees: T x T
// is never held, and tiles of other documents are not read. Work is 4 * T * T / 2 * h operations
// per head for (2T + 2T) * h elements read and written, so the matrix units are the limit, not
// memory. bf16: 128 queries share every key in shared memory; a load of values goes on beside the
// product with keys, and one of keys beside the product with values. f32: plain multiply-adds.
#include "runtime/cuda/attention_mma.cuh"
#include "runtime/cuda/attention_simt.cuh"
#include "runtime/cuda/cudnn_attention.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.cuh"

namespace caravan::cuda {
namespace {

// --- bf16 ----------------------------------------------------------------------------------------

// Two rows (lane_row() and + 8) of each of a warp's row tiles.
template <int kRowTiles>
struct SoftmaxRows {
  float largest[kRowTiles][2];
  float sum[kRowTiles][2];  // of this lane's columns
};

// Of row `half` (lane_row() or + 8) of a warp's row tile m, in the block's tile.
template <int kRowTiles>
__device__ int row_of(int m, int half) {
  return (mma::warp() * kRowTiles + m) * 16 + mma::lane_row() + 8 * half;
}

template <int kRowTiles>
__device__ void hide_unseen(mma::Sums<kRowTiles, mma::kTileColumns>& scores,
                            const int32_t* document_start, const AttentionTile& tile,
                            int first_key) {
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const int m = i / 2, half = i % 2, row = row_of<kRowTiles>(m, half);
    const bool known = document_start != nullptr && row < tile.count;
    // Read again in each masked step: registers are scarcer.
    const int start = known ? document_start[tile.sequence_start + tile.first + row] : 0;
#pragma unroll
    for (int n = 0; n < mma::kTileColumns; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int key = first_key + 8 * n + mma::lane_column() + j;
        const bool sees = start <= key && key <= tile.first + row;
        float& score = scores[m][n][2 * half + j];
        score = sees ? score : kUnseen;
      }
    }
  }
}

// Scores become weights relative to the largest so far; `out` is scaled to that. `unit`: what a
// score is multiplied by before 2 is raised to it.
template <int kColumns>
__device__ void softmax_step(float (&scores)[mma::kTileColumns][4], float& largest, float& sum,
                             float (&out)[kColumns][4], int half, float unit) {
  float most = largest;
#pragma unroll
  for (int n = 0; n < mma::kTileColumns; ++n) {
    most = fmaxf(most, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
  }
  most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
  most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
  const float factor = fast_exp2((largest - most) * unit);
  const float base = most * unit;
  largest = most;
  sum *= factor;
#pragma unroll
  for (int n = 0; n < mma::kTileColumns; ++n) {
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      scores[n][i] = fast_exp2(fmaf(scores[n][i], unit, -base));
      sum += scores[n][i];
    }
  }
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    out[n][2 * half] *= factor;
    out[n][2 * half + 1] *= factor;
  }
}

template <int kRowTiles, int kColumns>
__device__ void store_results(const ForwardArgs<bf16>& p, const AttentionTile& tile,
                              const SoftmaxRows<kRowTiles>& rows,
                              const mma::Sums<kRowTiles, kColumns>& out) {
  const AttentionShape& s = p.shape;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
    const int first = (mma::warp() * kRowTiles + m) * 16;
    const int64_t token = tile.sequence_start + tile.first + first;
    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = rows.sum[m][half];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      factor[half] = 1.0f / sum;
      const int row = mma::lane_row() + 8 * half;
      if (mma::lane() % 4 == 0 && first + row < tile.count) {
        p.lse[(token + row) * s.num_heads + tile.head] =
            rows.largest[m][half] * s.scale + logf(sum);
      }
    }
    mma::store_rows(out[m], factor, p.out + token * s.query_width() + tile.head * s.head_dim,
                    s.query_width(), tile.count - first, s.head_dim);
  }
}

template <int kWidth, int kRowTiles>
inline constexpr int kForwardBytes = mma::tile_bytes<kWidth>(mma::kWarps * 16 * kRowTiles +
                                                             2 * mma::kTile);

template <int kWidth, int kRowTiles>
__global__ void __launch_bounds__(mma::kThreads) forward_mma(const ForwardArgs<bf16> p) {
  constexpr int kRows = mma::kWarps * 16 * kRowTiles, kStride = mma::kStride<kWidth>;
  const AttentionShape& s = p.shape;
  bf16* const queries = shared_memory<bf16>();
  bf16* const keys = queries + kRows * kStride;
  bf16* const values = keys + mma::kTile * kStride;
  const AttentionTile tile = query_tile(s, kRows, blockIdx.x);
  const DocumentStarts starts = document_starts(p.document_start, tile);
  const int end = tile.first + tile.count;
  const int64_t width = s.key_width();
  const int64_t column = s.kv_head(tile.head) * s.head_dim;
  const auto copy = [&](bf16* to, const bf16* from, int key) {
    mma::copy_tile<kWidth, mma::kTile>(to, from + (tile.sequence_start + key) * width + column,
                                       width, end - key, s.head_dim);
    commit_copies();
  };
  const int64_t first_token = tile.sequence_start + tile.first;
  mma::copy_tile<kWidth, kRows>(queries,
                                p.q + first_token * s.query_width() + tile.head * s.head_dim,
                                s.query_width(), tile.count, s.head_dim);
  copy(keys, p.k, starts.least);
  SoftmaxRows<kRowTiles> rows;
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    rows.largest[i / 2][i % 2] = kLeastScore;
    rows.sum[i / 2][i % 2] = 0.0f;
  }
  mma::Sums<kRowTiles, kWidth / 8> out = {};
  for (int key = starts.least; key < end; key += mma::kTile) {
    wait_for_copies<0>();
    __syncthreads();  // the keys are there, and the last values have been read
    copy(values, p.v, key);
    mma::Sums<kRowTiles, mma::kTileColumns> scores = {};
    mma::multiply_rows<kWidth>(scores, queries + mma::warp() * kRowTiles * 16 * kStride, keys);
    if (key + mma::kTile > tile.first + 1 || key < starts.most) {
      hide_unseen<kRowTiles>(scores, p.document_start, tile, key);
    }
#pragma unroll
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      const int m = i / 2, half = i % 2;
      softmax_step(scores[m], rows.largest[m][half], rows.sum[m][half], out[m], half,
                   s.scale * kLog2E);
    }
    mma::Factor<kRowTiles, mma::kTile / 16> weights;
    mma::to_factor(scores, weights);
    wait_for_copies<0>();
    __syncthreads();  // the values are there, and the keys have been read
    if (key + mma::kTile < end) copy(keys, p.k, key + mma::kTile);
    mma::add_products<kWidth>(out, weights, values);
  }
  store_results(p, tile, rows, out);
}

// False where a block of the device has too little shared memory.
template <int kWidth, int kRowTiles>
bool launch_mma(const ForwardArgs<bf16>& p, const Queue& queue) {
  if (!mma::fits(kForwardBytes<kWidth, kRowTiles>, queue)) return false;
  const int64_t tiles = num_tiles(p.shape, mma::kWarps * 16 * kRowTiles) * p.shape.num_heads;
  launch({static_cast<unsigned>(tiles), mma::kThreads, kForwardBytes<kWidth, kRowTiles>},
         queue.stream, forward_mma<kWidth, kRowTiles>, p);
  return true;
}

// --- f32, and any width --------------------------------------------------------------------------

// Row by row what `softmax_step` does, with exponents of differences: their rounding errors are
// those of the differences, not of the scores.
__device__ void softmax_step(float (&scores)[4], float& largest, float& sum, float& factor,
                             float scale) {
  float most = largest;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    scores[j] *= scale;
    most = fmaxf(most, scores[j]);
  }
  most = simt::reduce_row(most, Max{});
  factor = expf(largest - most);
  largest = most;
  sum *= factor;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    scores[j] = expf(scores[j] - most);
    sum += scores[j];
  }
}

// Column blocks of blockIdx.y repeat the scores: wide heads are rare.
template <typename T, int kWidth>
__global__ void __launch_bounds__(simt::kThreads) forward_simt(const ForwardArgs<T> p) {
  __shared__ simt::Shared shared;
  const AttentionShape& s = p.shape;
  const AttentionTile tile = query_tile(s, simt::kTile, blockIdx.x);
  const DocumentStarts starts = document_starts(p.document_start, tile);
  const int column = static_cast<int>(blockIdx.y) * kWidth, end = tile.first + tile.count;
  const int64_t first_token = tile.sequence_start + tile.first;
  const int64_t query_at = first_token * s.query_width() + tile.head * s.head_dim;
  const simt::Rows<T> queries{p.q + query_at, s.query_width(), tile.count, s.head_dim};
  const auto rows_at = [&](const T* from, int key) {
    const int64_t at = (tile.sequence_start + key) * s.key_width();
    return simt::Rows<T>{from + at + s.kv_head(tile.head) * s.head_dim, s.key_width(), end - key,
                         s.head_dim};
  };
  float largest[4], sum[4] = {};
  int start[4] = {};
  for (int i = 0; i < 4; ++i) {
    const int row = simt::row_of_thread() + i;
    largest[i] = kLeastScore;
    if (p.document_start != nullptr && row < tile.count) {
      start[i] = p.document_start[first_token + row];
    }
  }
  simt::Sums<kWidth> out = {};
  for (int key = starts.least; key < end; key += simt::kTile) {
    float scores[4][4] = {};
    simt::multiply_rows(scores, queries, rows_at(p.k, key), shared);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = key + simt::column_of_thread() + j;
        const bool sees = start[i] <= at && at <= tile.first + simt::row_of_thread() + i;
        scores[i][j] = sees ? scores[i][j] : kUnseen / s.scale;
      }
      float factor = 0;
      softmax_step(scores[i], largest[i], sum[i], factor, s.scale);
#pragma unroll
      for (int n = 0; n < kWidth / simt::kTile; ++n) {
#pragma unroll
        for (int j = 0; j < 4; ++j) out[i][n][j] *= factor;
      }
    }
    simt::share_weights(scores, shared);
    simt::add_products<kWidth>(out, rows_at(p.v, key), column, shared);
  }
  float factor[4];
  for (int i = 0; i < 4; ++i) {
    const float total = simt::reduce_row(sum[i], Sum{});
    const int row = simt::row_of_thread() + i;
    factor[i] = 1.0f / total;
    if (column == 0 && simt::column_of_thread() == 0 && row < tile.count) {
      p.lse[(first_token + row) * s.num_heads + tile.head] = largest[i] + logf(total);
    }
  }
  simt::store_sums<kWidth>(out, factor, column, queries, p.out + query_at);
}

template <typename T, int kWidth>
void launch_simt(const ForwardArgs<T>& p, const Queue& queue) {
  const auto tiles = static_cast<unsigned>(num_tiles(p.shape, simt::kTile) * p.shape.num_heads);
  const auto columns = static_cast<unsigned>(divide_up(p.shape.head_dim, kWidth));
  launch({{tiles, columns}, simt::kThreads}, queue.stream, forward_simt<T, kWidth>, p);
}

template <typename T>
void attend(const ForwardArgs<T>& p, const Queue& queue) {
  const int h = p.shape.head_dim;
  if constexpr (std::is_same_v<T, bf16>) {
    if (h % 8 == 0 && h <= 64 && launch_mma<64, 2>(p, queue)) return;
    if (h % 8 == 0 && h <= 128 && launch_mma<128, 2>(p, queue)) return;
    if (h % 8 == 0 && h <= 256 && launch_mma<256, 1>(p, queue)) return;
  }
  if (h <= 64) return launch_simt<T, 64>(p, queue);
  launch_simt<T, 128>(p, queue);
}

}  // namespace

int64_t workspace_bytes(const Attention& op, const WorkspaceQuery& query) {
  return cudnn_workspace_bytes(op, query);
}

void run(const Attention& op, const KernelArgs& args, const Queue& queue) {
  const AttentionShape shape = attention_shape(op, args);
  with_type(args.inputs[0].dtype, [&]<typename T>(T) {
    const ForwardArgs<T> p{
        .shape = shape,
        .q = args.inputs[0].as<T>(),
        .k = args.inputs[1].as<T>(),
        .v = args.inputs[2].as<T>(),
        .document_start = op.whole_sequences ? nullptr : args.inputs[3].as<int32_t>(),
        .out = args.outputs[0].as<T>(),
        .lse = args.outputs[1].as<float>()};
    if constexpr (std::is_same_v<T, bf16>) {
      const bool asks =
          queue.cudnn_attention != nullptr && cudnn_may_take(op, args.inputs[0].dtype);
      const CudnnWorkspace workspace{args.workspace, args.workspace_bytes};
      if (asks && queue.cudnn_attention->forward(p, workspace, queue)) return;
    }
    attend(p, queue);
  });
}

}  // namespace caravan::cuda
