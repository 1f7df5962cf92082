// RMS norm of rows or of single heads, and its gradient. A row is read once: the threads that share
// it keep it in registers between the sum and the result. Threads of a row: a part of a warp
// (heads, narrow rows), or a whole block.
//
// The gradient of the weight is summed over chunks of rows in registers, one partial row per chunk
// (some percent of the bytes), and the partial rows in order by a second launch.
#include "runtime/cuda/column_sums.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/reduce.cuh"

namespace caravan::cuda {
namespace {

// Packs of a thread that stay in registers; wider rows are read twice.
constexpr int kNormKept = 4;
constexpr int kGradKept = 2;
constexpr int kLeastThreads = 128;
constexpr int kMostThreads = 1024;
constexpr int kMostGradThreads = 512;

// How rows lie on threads.
struct Rows {
  int64_t count;
  int width;
  int lanes;  // threads of a row: a power of two up to 32, or a block of warps
  int per_block;
};

Rows rows_on_threads(const Rows& rows, int pack, int kept, int most_threads) {
  const int packs = static_cast<int>(divide_up(rows.width, pack));
  // Two packs a lane are enough where lanes are few: they read whole lines of the cache.
  const int wanted = std::max((packs + kept - 1) / kept, std::min(8, (packs + 1) / 2));
  int lanes = 1;
  while (lanes < wanted && lanes < 32) lanes *= 2;
  if (wanted > 32) lanes = std::min(most_threads, (wanted + 31) / 32 * 32);
  return {rows.count, rows.width, lanes, lanes <= 32 ? kLeastThreads / lanes : 1};
}

// Where a thread works: which of its block's rows, and which columns of it.
template <int kSize, int kKept>
struct Lane {
  int index;
  int group;  // of the lanes that share a row
  int step;   // columns from one pack to the next

  __device__ explicit Lane(const Rows& rows)
      : index(static_cast<int>(threadIdx.x) % rows.lanes),
        group(static_cast<int>(threadIdx.x) / rows.lanes),
        step(rows.lanes * kSize) {}

  // body(k, column) for the packs that are kept.
  template <typename Body>
  __device__ void for_kept(int end, const Body& body) const {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      const int column = index * kSize + k * step;
      if (column < end) body(k, column);
    }
  }
  // body(column) for all others: few rows have any, so they get no registers by unrolling.
  template <typename Body>
  __device__ void for_rest(int end, const Body& body) const {
#pragma unroll 1
    for (int column = index * kSize + kKept * step; column < end; column += step) body(column);
  }
};

// Over the threads of a row, which all get it. All threads of the block call this together.
__device__ float sum_over_row(float value, int lanes) {
  if (lanes > 32) return reduce_block(value, Sum{});
  for (int bits = lanes / 2; bits > 0; bits /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, bits);
  }
  return value;
}

// --- forward -------------------------------------------------------------------------------------

template <typename T>
struct Norm {
  Rows rows;
  const T* x;
  const float* weight;  // null: all 1
  T* y;
  float* rstd;
  float eps;
};

template <typename T, int kSize>
__device__ float sum_of_squares(const Pack<T, kSize>& pack) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kSize; ++i) sum += to_float(pack.at[i]) * to_float(pack.at[i]);
  return sum;
}

template <typename T, int kSize>
__device__ Pack<T, kSize> scaled(const Pack<T, kSize>& in, float scale, const float* weight,
                                 int column) {
  Floats<kSize> factors;
#pragma unroll
  for (int i = 0; i < kSize; ++i) factors.at[i] = 1.0f;
  if (weight != nullptr) factors = load_floats<kSize>(weight + column);
  Pack<T, kSize> out;
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    out.at[i] = from_float<T>(to_float(in.at[i]) * scale * factors.at[i]);
  }
  return out;
}

template <typename T, int kSize>
__global__ void __launch_bounds__(kMostThreads) norm_kernel(Norm<T> norm) {
  const Lane<kSize, kNormKept> lane(norm.rows);
  const int width = norm.rows.width;
  const int64_t row = int64_t{blockIdx.x} * norm.rows.per_block + lane.group;
  const int end = row < norm.rows.count ? width : 0;  // beyond the last row there are no columns
  const T* const x = norm.x + row * width;
  T* const y = norm.y + row * width;
  Pack<T, kSize> kept[kNormKept] = {};
  float sum = 0;
  lane.for_kept(end, [&](int k, int column) { kept[k] = load_pack<kSize>(x + column); });
  lane.for_kept(end, [&](int k, int) { sum += sum_of_squares(kept[k]); });
#pragma unroll
  for (Pack<T, kSize>& pack : kept) stay_packed(pack);
  lane.for_rest(end, [&](int column) { sum += sum_of_squares(load_pack<kSize>(x + column)); });
  const float mean = sum_over_row(sum, norm.rows.lanes) / static_cast<float>(width);
  const float rstd = 1.0f / sqrtf(mean + norm.eps);
  if (lane.index == 0 && end > 0) norm.rstd[row] = rstd;
  lane.for_kept(end, [&](int k, int column) {
    store_pack(y + column, scaled(kept[k], rstd, norm.weight, column));
  });
  lane.for_rest(end, [&](int column) {
    const Pack<T, kSize> again = load_pack<kSize>(x + column);
    store_pack(y + column, scaled(again, rstd, norm.weight, column));
  });
}

template <typename T, int kSize>
void launch_norm(Norm<T> norm, const Queue& queue) {
  norm.rows = rows_on_threads(norm.rows, kSize, kNormKept, kMostThreads);
  const auto blocks = static_cast<unsigned>(divide_up(norm.rows.count, norm.rows.per_block));
  const auto threads = static_cast<unsigned>(norm.rows.lanes * norm.rows.per_block);
  launch({blocks, threads}, queue.stream, norm_kernel<T, kSize>, norm);
}

template <typename T>
void normalize(const Norm<T>& norm, const Queue& queue) {
  if (norm.rows.width % kFullPack<T> == 0 && are_vector_aligned(norm.x, norm.weight, norm.y)) {
    launch_norm<T, kFullPack<T>>(norm, queue);
  } else {
    launch_norm<T, 1>(norm, queue);
  }
}

// --- gradient ------------------------------------------------------------------------------------

template <typename T>
struct NormGrad {
  Rows rows;
  const T* x;
  const float* weight;  // null: all 1, and there are no partials
  const float* rstd;
  const T* dy;
  const T* addend;  // null: none; may be dx
  T* dx;
  float* partials;  // (chunks, width)
  int64_t chunk_rows;
};

// x and dy at one place, and what depends on them.
template <typename T, int kSize, bool kWeighted>
struct GradPack {
  Pack<T, kSize> x, dy;

  __device__ void load(const NormGrad<T>& grad, int64_t at) {
    x = load_pack<kSize>(grad.x + at);
    dy = load_pack<kSize>(grad.dy + at);
  }
  // dy w
  __device__ Floats<kSize> inner(const NormGrad<T>& grad, int column) const {
    Floats<kSize> product;
#pragma unroll
    for (int i = 0; i < kSize; ++i) product.at[i] = to_float(dy.at[i]);
    if constexpr (kWeighted) {
      const Floats<kSize> weight = load_floats<kSize>(grad.weight + column);
#pragma unroll
      for (int i = 0; i < kSize; ++i) product.at[i] *= weight.at[i];
    }
    return product;
  }
  __device__ float dot(const NormGrad<T>& grad, int column) const {
    const Floats<kSize> product = inner(grad, column);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kSize; ++i) sum += product.at[i] * to_float(x.at[i]);
    return sum;
  }
  // With n = x * rstd: dx = addend + rstd * (dy w - n * mean), where mean is that of dy w n.
  __device__ void store_dx(const NormGrad<T>& grad, int64_t at, int column, float rstd,
                           float mean) const {
    const Floats<kSize> product = inner(grad, column);
    Floats<kSize> sum = {};
    if (grad.addend != nullptr) {
      const Pack<T, kSize> before = load_pack<kSize>(grad.addend + at);
#pragma unroll
      for (int i = 0; i < kSize; ++i) sum.at[i] = to_float(before.at[i]);
    }
    Pack<T, kSize> out;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const float without_mean = product.at[i] - to_float(x.at[i]) * rstd * mean;
      out.at[i] = from_float<T>(sum.at[i] + rstd * without_mean);
    }
    store_pack(grad.dx + at, out);
  }
  __device__ void add_dweight(Floats<kSize>& sum, float rstd) const {
#pragma unroll
    for (int i = 0; i < kSize; ++i) sum.at[i] += to_float(dy.at[i]) * to_float(x.at[i]) * rstd;
  }
};

template <int kSize>
using GradLane = Lane<kSize, kGradKept>;

// The gradient of the weight over one chunk, the part that one thread has: of packs that are kept
// in registers, of the rest in memory.
template <int kSize>
struct WeightSums {
  Floats<kSize> kept[kGradKept] = {};
  float* partials;  // (width)

  __device__ void clear_rest(const GradLane<kSize>& lane, int width) const {
    lane.for_rest(width, [&](int column) { store_floats<kSize>(partials + column, {}); });
  }
  template <typename Place>
  __device__ void add_rest(const Place& place, int column, float rstd) const {
    Floats<kSize> sum = load_floats<kSize>(partials + column);
    place.add_dweight(sum, rstd);
    store_floats(partials + column, sum);
  }
  __device__ void store_kept(const GradLane<kSize>& lane, int width) const {
    lane.for_kept(width, [&](int k, int column) { store_floats(partials + column, kept[k]); });
  }
};

// One row; what the weight's gradient gets of it is added to `sums`. A row that is none (`end` is
// 0) adds nothing.
template <typename T, int kSize, bool kWeighted>
__device__ void norm_grad_row(const NormGrad<T>& grad, const GradLane<kSize>& lane, int64_t row,
                              WeightSums<kSize>& sums) {
  using Place = GradPack<T, kSize, kWeighted>;
  const int end = row < grad.rows.count ? grad.rows.width : 0;
  const int64_t at = row * grad.rows.width;
  const auto load = [&](int column) {
    Place place;
    place.load(grad, at + column);
    return place;
  };
  Place kept[kGradKept] = {};
  float sum = 0;
  const float rstd = end > 0 ? grad.rstd[row] : 0.0f;
  lane.for_kept(end, [&](int k, int column) { kept[k].load(grad, at + column); });
  lane.for_kept(end, [&](int k, int column) {
    sum += kept[k].dot(grad, column);
    if constexpr (kWeighted) kept[k].add_dweight(sums.kept[k], rstd);
  });
  lane.for_rest(end, [&](int column) {
    const Place place = load(column);
    sum += place.dot(grad, column);
    if constexpr (kWeighted) sums.add_rest(place, column, rstd);
  });
#pragma unroll
  for (Place& place : kept) {
    stay_packed(place.x);
    stay_packed(place.dy);
  }
  const float mean =
      sum_over_row(sum, grad.rows.lanes) / static_cast<float>(grad.rows.width) * rstd;
  lane.for_kept(
      end, [&](int k, int column) { kept[k].store_dx(grad, at + column, column, rstd, mean); });
  lane.for_rest(end,
                [&](int column) { load(column).store_dx(grad, at + column, column, rstd, mean); });
}

// Every group of lanes takes one chunk of rows. All groups of a block go through as many rounds, as
// they make their sums together.
template <typename T, int kSize, bool kWeighted>
__global__ void __launch_bounds__(kMostGradThreads) norm_grad_kernel(NormGrad<T> grad) {
  const GradLane<kSize> lane(grad.rows);
  const int64_t chunk = int64_t{blockIdx.x} * grad.rows.per_block + lane.group;
  const int64_t first = chunk * grad.chunk_rows;
  const int width = kWeighted && first < grad.rows.count ? grad.rows.width : 0;
  WeightSums<kSize> sums{.partials = grad.partials + chunk * grad.rows.width};
  sums.clear_rest(lane, width);
  for (int64_t round = 0; round < grad.chunk_rows; ++round) {
    norm_grad_row<T, kSize, kWeighted>(grad, lane, first + round, sums);
  }
  sums.store_kept(lane, width);
}

template <typename T, int kSize, bool kWeighted>
void launch_norm_grad(NormGrad<T> grad, const Queue& queue) {
  grad.rows = rows_on_threads(grad.rows, kSize, kGradKept, kMostGradThreads);
  const int64_t chunks = divide_up(grad.rows.count, grad.chunk_rows);
  const auto blocks = static_cast<unsigned>(divide_up(chunks, grad.rows.per_block));
  const auto threads = static_cast<unsigned>(grad.rows.lanes * grad.rows.per_block);
  launch({blocks, threads}, queue.stream, norm_grad_kernel<T, kSize, kWeighted>, grad);
}

template <bool kWeighted, typename T>
void differentiate(const NormGrad<T>& grad, const Queue& queue) {
  if (grad.rows.width % kFullPack<T> == 0 &&
      are_vector_aligned(grad.x, grad.weight, grad.dy, grad.addend, grad.dx)) {
    launch_norm_grad<T, kFullPack<T>, kWeighted>(grad, queue);
  } else {
    launch_norm_grad<T, 1, kWeighted>(grad, queue);
  }
}

// Rows of a chunk: the more, the fewer partial rows; the fewer, the more chunks that run at once.
// 264 chunks of wide rows are two on each of 132 multiprocessors, which is what their registers
// allow; narrower rows have fewer threads each.
constexpr int64_t kLeastChunkRows = 16;
int64_t most_chunks(int64_t width) {
  return std::clamp<int64_t>((264 << 12) / std::max<int64_t>(width, 1), 264, 4096);
}
int64_t rows_of_chunk(int64_t rows, int64_t width) {
  return std::max(kLeastChunkRows, divide_up(rows, most_chunks(width)));
}

Rows rows(int64_t count, int64_t width) {
  check_that(width <= 1 << 30, "a row of a norm has 2^30 columns at most");
  return {.count = count, .width = static_cast<int>(width), .lanes = 0, .per_block = 0};
}

}  // namespace

void run(const RmsNorm& op, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    normalize<T>({.rows = rows(args.inputs[0].dim(0), args.inputs[0].dim(1)),
                  .x = args.inputs[0].as<T>(),
                  .weight = args.inputs[1].as<float>(),
                  .y = args.outputs[0].as<T>(),
                  .rstd = args.outputs[1].as<float>(),
                  .eps = op.eps},
                 queue);
  });
}

void run(const HeadNorm& op, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    normalize<T>({.rows = rows(args.outputs[1].size(), op.head_dim),
                  .x = args.inputs[0].as<T>(),
                  .weight = nullptr,
                  .y = args.outputs[0].as<T>(),
                  .rstd = args.outputs[1].as<float>(),
                  .eps = op.eps},
                 queue);
  });
}

// Enough for any number of rows up to the planned one.
int64_t workspace_bytes(const RmsNormGrad&, const WorkspaceQuery& query) {
  const int64_t rows = query.inputs[0].shape[0], width = query.inputs[0].shape[1];
  const int64_t chunks = std::min(most_chunks(width), divide_up(rows, kLeastChunkRows));
  return chunks * width * static_cast<int64_t>(sizeof(float));
}

void run(const RmsNormGrad& op, const KernelArgs& args, const Queue& queue) {
  const int64_t count = args.inputs[0].dim(0), width = args.inputs[0].dim(1);
  auto* const partials = static_cast<float*>(args.workspace);
  const int64_t chunk_rows = rows_of_chunk(count, width);
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    differentiate<true, T>(
        {.rows = rows(count, width),
         .x = args.inputs[0].as<T>(),
         .weight = args.inputs[1].as<float>(),
         .rstd = args.inputs[2].as<float>(),
         .dy = args.inputs[3].as<T>(),
         .addend = op.addend == Addend::none ? nullptr : args.inputs.back().as<T>(),
         .dx = args.outputs[0].as<T>(),
         .partials = partials,
         .chunk_rows = chunk_rows},
        queue);
  });
  sum_partials(partials, divide_up(count, chunk_rows), width, args.outputs[1].as<float>(),
               queue.stream);
}

void run(const HeadNormGrad& op, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    differentiate<false, T>({.rows = rows(args.inputs[1].size(), op.head_dim),
                             .x = args.inputs[0].as<T>(),
                             .weight = nullptr,
                             .rstd = args.inputs[1].as<float>(),
                             .dy = args.inputs[2].as<T>(),
                             .addend = nullptr,
                             .dx = args.outputs[0].as<T>(),
                             .partials = nullptr,
                             .chunk_rows = 1},
                            queue);
  });
}

}  // namespace caravan::cuda
