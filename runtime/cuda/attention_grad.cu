// The gradient of causal attention: weights are made again from lse, tile by tile (Dao et al.,
// "FlashAttention", 2022).
//
// dq by tiles of queries, dk and dv by tiles of keys: each sum has one block, which adds in one
// order, so nothing is atomic and the bits are the same in every run. The price is that scores and
// gradients of weights are made twice: 7 products of tiles instead of 5. Keys (or queries) of the
// next step are copied while this one's are multiplied.
#include <climits>

#include "runtime/cuda/attention_mma.cuh"
#include "runtime/cuda/attention_simt.cuh"
#include "runtime/cuda/cudnn_attention.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.cuh"

namespace caravan::cuda {
namespace {

// --- delta ---------------------------------------------------------------------------------------

constexpr int kDeltaThreads = 256;

// A warp sums dout * out of one head of one token.
template <typename T>
__global__ void __launch_bounds__(kDeltaThreads)
    delta_kernel(const BackwardArgs<T> p, int64_t num_rows) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = (int64_t{blockIdx.x} * kDeltaThreads + threadIdx.x) / 32;
  if (row >= num_rows) return;  // the whole warp
  const int h = p.shape.head_dim;
  const T *out = p.out + row * h, *dout = p.dout + row * h;
  float sum = 0;
  if (h % Vector<T>::kSize == 0) {
    for (int i = lane * Vector<T>::kSize; i < h; i += 32 * Vector<T>::kSize) {
      const Vector<T> a = load_vector(out + i), b = load_vector(dout + i);
#pragma unroll
      for (int j = 0; j < Vector<T>::kSize; ++j) {
        sum = fmaf(to_float(a.at[j]), to_float(b.at[j]), sum);
      }
    }
  } else {
    for (int i = lane; i < h; i += 32) sum = fmaf(to_float(out[i]), to_float(dout[i]), sum);
  }
  sum = reduce_warp(sum, Sum{});
  if (lane == 0) p.delta[row] = sum;
}

// --- bf16 ----------------------------------------------------------------------------------------

// Scores become weights, gradients of weights those of scores (not yet times the scale).
// `unit`: what a score is multiplied by before 2 is raised to it; `log2_sum`: lse in such units.
__device__ inline void softmax_gradient(float& score, float& dweight, float unit, float log2_sum,
                                        float delta, bool sees) {
  const float weight = fast_exp2(fmaf(score, unit, -log2_sum));
  score = sees ? weight : 0.0f;
  dweight = sees ? weight * (dweight - delta) : 0.0f;
}

// What is known of two queries (rows lane_row() and + 8) of a warp.
struct RowStatistics {
  float log2_sum[2] = {};
  float delta[2] = {};
  int start[2] = {};
};
__device__ inline RowStatistics load_rows(const BackwardArgs<bf16>& p, const AttentionTile& tile) {
  RowStatistics rows;
  for (int half = 0; half < 2; ++half) {
    const int row = mma::warp() * 16 + mma::lane_row() + 8 * half;
    if (row >= tile.count) continue;
    const int64_t token = tile.sequence_start + tile.first + row;
    const int64_t at = token * p.shape.num_heads + tile.head;
    rows.log2_sum[half] = p.lse[at] * kLog2E;
    rows.delta[half] = p.delta[at];
    if (p.document_start != nullptr) rows.start[half] = p.document_start[token];
  }
  return rows;
}

using TileSums = mma::Sums<1, mma::kTileColumns>;

// Of scores (queries, keys).
__device__ inline void gradient_of_rows(TileSums& scores, TileSums& dweights,
                                        const RowStatistics& rows, int first_query, int first_key,
                                        bool all_seen, float unit) {
#pragma unroll
  for (int n = 0; n < mma::kTileColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int half = i / 2, key = first_key + 8 * n + mma::lane_column() + i % 2;
      const int query = first_query + mma::warp() * 16 + mma::lane_row() + 8 * half;
      const bool sees = all_seen || (rows.start[half] <= key && key <= query);
      softmax_gradient(scores[0][n][i], dweights[0][n][i], unit, rows.log2_sum[half],
                       rows.delta[half], sees);
    }
  }
}

template <int kWidth>
inline constexpr int kTileElements = mma::kTile* mma::kStride<kWidth>;

template <int kWidth>
__global__ void __launch_bounds__(mma::kThreads) dq_mma(const BackwardArgs<bf16> p) {
  constexpr int kElements = kTileElements<kWidth>;
  const AttentionShape& s = p.shape;
  bf16* const queries = shared_memory<bf16>();
  bf16* const douts = queries + kElements;
  bf16* const stages = douts + kElements;  // two of: keys, values
  const AttentionTile tile = query_tile(s, mma::kTile, blockIdx.x);
  const DocumentStarts starts = document_starts(p.document_start, tile);
  const int end = tile.first + tile.count;
  const auto copy = [&](bf16* to, const bf16* from, int key) {
    const int64_t at = (tile.sequence_start + key) * s.key_width();
    mma::copy_tile<kWidth, mma::kTile>(to, from + at + s.kv_head(tile.head) * s.head_dim,
                                       s.key_width(), end - key, s.head_dim);
  };
  const int64_t first_token = tile.sequence_start + tile.first;
  const int64_t query_at = first_token * s.query_width() + tile.head * s.head_dim;
  mma::copy_tile<kWidth, mma::kTile>(queries, p.q + query_at, s.query_width(), tile.count,
                                     s.head_dim);
  mma::copy_tile<kWidth, mma::kTile>(douts, p.dout + query_at, s.query_width(), tile.count,
                                     s.head_dim);
  copy(stages, p.k, starts.least);
  copy(stages + kElements, p.v, starts.least);
  commit_copies();
  const int warp_row = mma::warp() * 16;
  const RowStatistics rows = load_rows(p, tile);
  mma::Sums<1, kWidth / 8> dq = {};
  int stage = 0;
  for (int key = starts.least; key < end; key += mma::kTile, stage ^= 1) {
    const bf16* const keys = stages + stage * 2 * kElements;
    wait_for_copies<0>();
    __syncthreads();  // these keys are there, and the last ones have been read
    if (key + mma::kTile < end) {
      bf16* const next = stages + (stage ^ 1) * 2 * kElements;
      copy(next, p.k, key + mma::kTile);
      copy(next + kElements, p.v, key + mma::kTile);
      commit_copies();
    }
    TileSums scores = {}, dweights = {};
    mma::multiply_rows<kWidth>(scores, queries + warp_row * mma::kStride<kWidth>, keys);
    mma::multiply_rows<kWidth>(dweights, douts + warp_row * mma::kStride<kWidth>, keys + kElements);
    const bool all_seen = key + mma::kTile <= tile.first + 1 && key >= starts.most;
    gradient_of_rows(scores, dweights, rows, tile.first, key, all_seen, s.scale * kLog2E);
    mma::Factor<1, mma::kTile / 16> dscores;
    mma::to_factor(dweights, dscores);
    mma::add_products<kWidth>(dq, dscores, keys);
  }
  const float factor[2] = {s.scale, s.scale};
  mma::store_rows(dq[0], factor, p.dq + query_at + warp_row * s.query_width(), s.query_width(),
                  tile.count - warp_row, s.head_dim);
}

// Of the queries of one step, (64) each.
struct QueryStatistics {
  float log2_sum[mma::kTile];
  float delta[mma::kTile];
  int start[mma::kTile];  // beyond the sequence: nothing is seen
};

// A thread's share of them, on its way to shared memory.
struct StatisticsInFlight {
  float value = 0;
  int start = 0;
};
__device__ inline StatisticsInFlight load_statistics(const BackwardArgs<bf16>& p,
                                                     const AttentionTile& queries) {
  const int thread = static_cast<int>(threadIdx.x), row = thread % mma::kTile;
  StatisticsInFlight mine{0.0f, INT_MAX};
  if (row >= queries.count) return mine;
  const int64_t token = queries.sequence_start + queries.first + row;
  const float* from = thread < mma::kTile ? p.lse : p.delta;
  mine.value = from[token * p.shape.num_heads + queries.head];
  mine.start = p.document_start == nullptr ? 0 : p.document_start[token];
  return mine;
}
__device__ inline void share_statistics(const StatisticsInFlight& mine, QueryStatistics& shared) {
  const int thread = static_cast<int>(threadIdx.x), row = thread % mma::kTile;
  if (thread < mma::kTile) {
    shared.log2_sum[row] = mine.value * kLog2E;
    shared.start[row] = mine.start;
  } else {
    shared.delta[row] = mine.value;
  }
}

// Of scores that lie transposed, (keys, queries).
__device__ inline void gradient_of_columns(TileSums& scores, TileSums& dweights,
                                           const QueryStatistics& queries, int first_query,
                                           int first_key, float unit) {
#pragma unroll
  for (int n = 0; n < mma::kTileColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = 8 * n + mma::lane_column() + i % 2;
      const int key = first_key + mma::warp() * 16 + mma::lane_row() + i / 2 * 8;
      const bool sees = queries.start[query] <= key && key <= first_query + query;
      softmax_gradient(scores[0][n][i], dweights[0][n][i], unit, queries.log2_sum[query],
                       queries.delta[query], sees);
    }
  }
}

// The query tiles of all heads that read some keys, one after another.
struct QuerySteps {
  int first;  // token of the first tile
  int end;
  int begin_head;
  int64_t sequence_start;
  __device__ int per_head() const { return (end - first + mma::kTile - 1) / mma::kTile; }
  __device__ AttentionTile at(int step) const {
    const int token = first + step % per_head() * mma::kTile;
    return {begin_head + step / per_head(), token, min(mma::kTile, end - token), sequence_start};
  }
};

// Scores lie transposed, (keys, queries), so that the sums over queries are rows of products.
// kColumns of dk and dv from blockIdx.y * kColumns on; more would not fit into registers.
template <int kWidth, int kColumns>
__global__ void __launch_bounds__(mma::kThreads) dkv_mma(const BackwardArgs<bf16> p) {
  constexpr int kElements = kTileElements<kWidth>;
  __shared__ QueryStatistics statistics[2];
  const AttentionShape& s = p.shape;
  bf16* const keys = shared_memory<bf16>();
  bf16* const values = keys + kElements;
  bf16* const stages = values + kElements;  // two of: queries, douts
  const AttentionTile tile = key_tile(s, mma::kTile, blockIdx.x);
  const int column = static_cast<int>(blockIdx.y) * kColumns, warp_row = mma::warp() * 16;
  const int64_t key_at =
      (tile.sequence_start + tile.first) * s.key_width() + tile.head * s.head_dim;
  mma::copy_tile<kWidth, mma::kTile>(keys, p.k + key_at, s.key_width(), tile.count, s.head_dim);
  mma::copy_tile<kWidth, mma::kTile>(values, p.v + key_at, s.key_width(), tile.count, s.head_dim);
  const auto copy = [&](bf16* to, const AttentionTile& queries) {
    const int64_t at =
        (queries.sequence_start + queries.first) * s.query_width() + queries.head * s.head_dim;
    mma::copy_tile<kWidth, mma::kTile>(to, p.q + at, s.query_width(), queries.count, s.head_dim);
    mma::copy_tile<kWidth, mma::kTile>(to + kElements, p.dout + at, s.query_width(), queries.count,
                                       s.head_dim);
    commit_copies();
  };
  const QuerySteps steps{tile.first, end_of_queries(p.document_start, tile, s.sequence_len),
                         s.begin_of(tile.head), tile.sequence_start};
  const int num_steps = (s.begin_of(tile.head + 1) - steps.begin_head) * steps.per_head();
  if (num_steps > 0) {
    copy(stages, steps.at(0));
    share_statistics(load_statistics(p, steps.at(0)), statistics[0]);
  }
  if (num_steps == 0) {  // no query heads here: the copies of keys and values end all the same
    commit_copies();
    wait_for_copies<0>();
  }
  mma::Sums<1, kColumns / 8> dk = {}, dv = {};
  for (int step = 0; step < num_steps; ++step) {
    const int stage = step % 2;
    const bf16* const queries = stages + stage * 2 * kElements;
    wait_for_copies<0>();
    __syncthreads();  // these queries are there, and the last ones have been read
    StatisticsInFlight next;
    if (step + 1 < num_steps) {
      copy(stages + (stage ^ 1) * 2 * kElements, steps.at(step + 1));
      next = load_statistics(p, steps.at(step + 1));
    }
    TileSums weights = {}, dweights = {};
    mma::multiply_rows<kWidth>(weights, keys + warp_row * mma::kStride<kWidth>, queries);
    mma::multiply_rows<kWidth>(dweights, values + warp_row * mma::kStride<kWidth>,
                               queries + kElements);
    gradient_of_columns(weights, dweights, statistics[stage], steps.at(step).first, tile.first,
                        s.scale * kLog2E);
    mma::Factor<1, mma::kTile / 16> factor;
    mma::to_factor(weights, factor);
    mma::add_products<kWidth>(dv, factor, queries + kElements + column);
    mma::to_factor(dweights, factor);
    mma::add_products<kWidth>(dk, factor, queries + column);
    if (step + 1 < num_steps) share_statistics(next, statistics[stage ^ 1]);
  }
  const int64_t to = key_at + warp_row * s.key_width() + column;
  const float one[2] = {1.0f, 1.0f}, scale[2] = {s.scale, s.scale};
  mma::store_rows(dk[0], scale, p.dk + to, s.key_width(), tile.count - warp_row,
                  s.head_dim - column);
  mma::store_rows(dv[0], one, p.dv + to, s.key_width(), tile.count - warp_row, s.head_dim - column);
}

// False where a block of the device has too little shared memory.
template <int kWidth>
bool launch_mma(const BackwardArgs<bf16>& p, const Queue& queue) {
  constexpr int kColumns = kWidth < 128 ? kWidth : 128;
  constexpr int kBytes = mma::tile_bytes<kWidth>(6 * mma::kTile);
  if (!mma::fits(kBytes, queue)) return false;
  const AttentionShape& s = p.shape;
  const int64_t tiles = num_tiles(s, mma::kTile);
  launch({static_cast<unsigned>(tiles * s.num_heads), mma::kThreads, kBytes}, queue.stream,
         dq_mma<kWidth>, p);
  const auto columns = static_cast<unsigned>(divide_up(s.head_dim, kColumns));
  launch({{static_cast<unsigned>(tiles * s.num_kv_heads), columns}, mma::kThreads, kBytes},
         queue.stream, dkv_mma<kWidth, kColumns>, p);
  return true;
}

// --- f32, and any width --------------------------------------------------------------------------

// What a tile of queries needs: rows of q and dout, and what is known of each of a thread's rows.
template <typename T>
struct QueryRows {
  simt::Rows<T> queries;
  simt::Rows<T> douts;
  float lse[4] = {};
  float delta[4] = {};
  int token[4] = {};
  int start[4] = {};  // beyond the sequence: nothing is seen
};

template <typename T>
__device__ QueryRows<T> query_rows(const BackwardArgs<T>& p, const AttentionTile& tile) {
  const AttentionShape& s = p.shape;
  const int64_t first_token = tile.sequence_start + tile.first;
  const int64_t at = first_token * s.query_width() + tile.head * s.head_dim;
  QueryRows<T> rows{{p.q + at, s.query_width(), tile.count, s.head_dim},
                    {p.dout + at, s.query_width(), tile.count, s.head_dim}};
  for (int i = 0; i < 4; ++i) {
    const int row = simt::row_of_thread() + i;
    rows.token[i] = tile.first + row;
    rows.start[i] = INT_MAX;
    if (row >= tile.count) continue;
    rows.lse[i] = p.lse[(first_token + row) * s.num_heads + tile.head];
    rows.delta[i] = p.delta[(first_token + row) * s.num_heads + tile.head];
    rows.start[i] = p.document_start == nullptr ? 0 : p.document_start[first_token + row];
  }
  return rows;
}

// weights and dscores (queries, keys) of a tile.
template <typename T>
__device__ void simt_gradients(float (&weights)[4][4], float (&dscores)[4][4],
                               const QueryRows<T>& rows, const simt::Rows<T>& keys,
                               const simt::Rows<T>& values, int first_key, float scale,
                               simt::Shared& shared) {
  simt::multiply_rows(weights, rows.queries, keys, shared);
  simt::multiply_rows(dscores, rows.douts, values, shared);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int key = first_key + simt::column_of_thread() + j;
      const bool sees = rows.start[i] <= key && key <= rows.token[i];
      const float weight = expf(weights[i][j] * scale - rows.lse[i]);
      weights[i][j] = sees ? weight : 0.0f;
      dscores[i][j] = sees ? weight * (dscores[i][j] - rows.delta[i]) : 0.0f;
    }
  }
}

template <typename T>
__device__ simt::Rows<T> key_rows(const AttentionShape& s, const T* from, int kv_head,
                                  int64_t token, int count) {
  return {from + token * s.key_width() + kv_head * s.head_dim, s.key_width(), count, s.head_dim};
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(simt::kThreads) dq_simt(const BackwardArgs<T> p) {
  __shared__ simt::Shared shared;
  const AttentionShape& s = p.shape;
  const AttentionTile tile = query_tile(s, simt::kTile, blockIdx.x);
  const DocumentStarts starts = document_starts(p.document_start, tile);
  const QueryRows<T> rows = query_rows(p, tile);
  const int column = static_cast<int>(blockIdx.y) * kWidth, kv_head = s.kv_head(tile.head);
  const int end = tile.first + tile.count;
  simt::Sums<kWidth> dq = {};
  for (int key = starts.least; key < end; key += simt::kTile) {
    const int64_t token = tile.sequence_start + key;
    const simt::Rows<T> keys = key_rows(s, p.k, kv_head, token, end - key);
    float weights[4][4] = {}, dscores[4][4] = {};
    simt_gradients(weights, dscores, rows, keys, key_rows(s, p.v, kv_head, token, end - key), key,
                   s.scale, shared);
    simt::share_weights(dscores, shared);
    simt::add_products<kWidth>(dq, keys, column, shared);
  }
  const float scale[4] = {s.scale, s.scale, s.scale, s.scale};
  const int64_t first_token = tile.sequence_start + tile.first;
  simt::store_sums<kWidth>(dq, scale, column, rows.queries,
                           p.dq + first_token * s.query_width() + tile.head * s.head_dim);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(simt::kThreads) dkv_simt(const BackwardArgs<T> p) {
  __shared__ simt::Shared shared;
  const AttentionShape& s = p.shape;
  const AttentionTile tile = key_tile(s, simt::kTile, blockIdx.x);
  const int column = static_cast<int>(blockIdx.y) * kWidth;
  const int end = end_of_queries(p.document_start, tile, s.sequence_len);
  const int64_t token = tile.sequence_start + tile.first;
  const simt::Rows<T> keys = key_rows(s, p.k, tile.head, token, tile.count);
  const simt::Rows<T> values = key_rows(s, p.v, tile.head, token, tile.count);
  simt::Sums<kWidth> dk = {}, dv = {};
  for (int head = s.begin_of(tile.head); head < s.begin_of(tile.head + 1); ++head) {
    for (int query = tile.first; query < end; query += simt::kTile) {
      const QueryRows<T> rows =
          query_rows(p, {head, query, min(simt::kTile, end - query), tile.sequence_start});
      float weights[4][4] = {}, dscores[4][4] = {};
      simt_gradients(weights, dscores, rows, keys, values, tile.first, s.scale, shared);
      simt::share_weights_transposed(weights, shared);
      simt::add_products<kWidth>(dv, rows.douts, column, shared);
      simt::share_weights_transposed(dscores, shared);
      simt::add_products<kWidth>(dk, rows.queries, column, shared);
    }
  }
  const float one[4] = {1, 1, 1, 1}, scale[4] = {s.scale, s.scale, s.scale, s.scale};
  const int64_t to = token * s.key_width() + tile.head * s.head_dim;
  simt::store_sums<kWidth>(dk, scale, column, keys, p.dk + to);
  simt::store_sums<kWidth>(dv, one, column, values, p.dv + to);
}

template <typename T, int kWidth>
void launch_simt(const BackwardArgs<T>& p, const Queue& queue) {
  const AttentionShape& s = p.shape;
  const int64_t tiles = num_tiles(s, simt::kTile);
  const auto columns = static_cast<unsigned>(divide_up(s.head_dim, kWidth));
  launch({{static_cast<unsigned>(tiles * s.num_heads), columns}, simt::kThreads}, queue.stream,
         dq_simt<T, kWidth>, p);
  launch({{static_cast<unsigned>(tiles * s.num_kv_heads), columns}, simt::kThreads}, queue.stream,
         dkv_simt<T, kWidth>, p);
}

template <typename T>
void backward(const BackwardArgs<T>& p, const Queue& queue) {
  const AttentionShape& s = p.shape;
  const int h = s.head_dim;
  const int64_t rows = int64_t{s.num_sequences} * s.sequence_len * s.num_heads;
  launch({static_cast<unsigned>(divide_up(rows * 32, kDeltaThreads)), kDeltaThreads}, queue.stream,
         delta_kernel<T>, p, rows);
  if constexpr (std::is_same_v<T, bf16>) {
    if (h % 8 == 0 && h <= 64 && launch_mma<64>(p, queue)) return;
    if (h % 8 == 0 && h <= 128 && launch_mma<128>(p, queue)) return;
    if (h % 8 == 0 && h <= 256 && launch_mma<256>(p, queue)) return;
  }
  if (h <= 64) return launch_simt<T, 64>(p, queue);
  launch_simt<T, 128>(p, queue);
}

}  // namespace

// delta, or what cuDNN needs
int64_t workspace_bytes(const AttentionGrad& op, const WorkspaceQuery& query) {
  const Shape& q = query.inputs[0].shape;
  const int64_t delta_bytes = q[0] * (q[1] / op.head_dim) * static_cast<int64_t>(sizeof(float));
  return std::max(delta_bytes, cudnn_workspace_bytes(op, query));
}

void run(const AttentionGrad& op, const KernelArgs& args, const Queue& queue) {
  const AttentionShape shape = attention_shape(op, args);
  with_type(args.inputs[0].dtype, [&]<typename T>(T) {
    const BackwardArgs<T> p{
        .shape = shape,
        .q = args.inputs[0].as<T>(),
        .k = args.inputs[1].as<T>(),
        .v = args.inputs[2].as<T>(),
        .document_start = op.whole_sequences ? nullptr : args.inputs[3].as<int32_t>(),
        .out = args.inputs[4].as<T>(),
        .lse = args.inputs[5].as<float>(),
        .dout = args.inputs[6].as<T>(),
        .dq = args.outputs[0].as<T>(),
        .dk = args.outputs[1].as<T>(),
        .dv = args.outputs[2].as<T>(),
        .delta = static_cast<float*>(args.workspace)};
    if constexpr (std::is_same_v<T, bf16>) {
      const bool asks =
          queue.cudnn_attention != nullptr && cudnn_may_take(op, args.inputs[0].dtype);
      const CudnnWorkspace workspace{args.workspace, args.workspace_bytes};
      if (asks && queue.cudnn_attention->backward(p, workspace, queue)) return;
    }
    backward(p, queue);
  });
}

}  // namespace caravan::cuda
