// Products of experts: rows that follow one another belong to one expert, and how many they are is
// known on the device alone. So a grid of as many blocks as run at once goes through the tiles of
// all experts: each block reads the counts and takes every gridDim-th tile.
//
// Tiles of bf16 are 128 x 256 where experts have enough rows: their factors are read from the
// second-level cache at about 31 bytes per clock and multiprocessor at 600 TFLOP/s, what smaller
// tiles exceed by half. Few rows for each expert, or narrow weights: 64 x 64, four blocks at once.
// Tiles of the same columns follow one another, so that blocks share weights.
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/matrix_tiles.cuh"
#include "runtime/cuda/reduce.cuh"

namespace caravan::cuda {
namespace {

using LargeTile = MmaTile<128, 256, 2, 4>;
using SmallTile = MmaTile<64, 64, 2, 2>;

template <typename Tile>
constexpr int kBlocksPerMultiprocessor = std::is_same_v<Tile, LargeTile>   ? 1
                                         : std::is_same_v<Tile, SmallTile> ? 4
                                                                           : 3;

// Two neighbours of a row of the output.
template <typename T>
struct alignas(2 * sizeof(T)) Pair {
  T at[2];
};

// Where tiles go: rows of n elements, added to `addend` if there is one (it may be `out`).
template <typename T>
struct Output {
  T* out;
  const T* addend;
  int64_t n;
  bool pairs;  // pairs of columns are aligned

  __device__ void store(int64_t row, int64_t column, float first, float second) const {
    const int64_t at = row * n + column;
    if (pairs && column + 1 < n) {
      if (addend != nullptr) {
        const auto sum = *reinterpret_cast<const Pair<T>*>(addend + at);
        first += to_float(sum.at[0]);
        second += to_float(sum.at[1]);
      }
      *reinterpret_cast<Pair<T>*>(out + at) = {from_float<T>(first), from_float<T>(second)};
      return;
    }
    if (column < n) store_one(at, first);
    if (column + 1 < n) store_one(at + 1, second);
  }
  __device__ void store_one(int64_t at, float value) const {
    if (addend != nullptr) value += to_float(addend[at]);
    out[at] = from_float<T>(value);
  }
};

template <typename T>
Output<T> output_of(const TensorView& out, const void* addend, int64_t n) {
  return {out.as<T>(), static_cast<const T*>(addend), n, n % 2 == 0};
}

// --- rows of experts -----------------------------------------------------------------------------

__device__ inline int64_t sum_to_lane(int64_t value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (unsigned by = 1; by < 32; by *= 2) {
    const int64_t below = __shfl_up_sync(kAllLanes, value, by);
    if (lane >= static_cast<int>(by)) value += below;
  }
  return value;
}

// Where a tile lies: rows [begin, begin + count) belong to a segment, one of `counts`.
struct TilePlace {
  int segment;
  int64_t begin;
  int64_t count;
  int64_t tile;  // among those of the segment
};

// Finds tiles by number, which must rise. Every warp does the same: 32 counts at a time.
class TileFinder {
 public:
  __device__ TileFinder(const int32_t* counts, int num_segments, int64_t tiles_of_columns)
      : counts_(counts), num_segments_(num_segments), tiles_of_columns_(tiles_of_columns) {}

  template <int kTileRows>
  __device__ bool find(int64_t tile, TilePlace& place) {
    for (; base_ < num_segments_; base_ += 32) {
      const int segment = base_ + static_cast<int>(threadIdx.x) % 32;
      const int64_t count = segment < num_segments_ ? counts_[segment] : 0;
      const int64_t tiles = (count + kTileRows - 1) / kTileRows * tiles_of_columns_;
      const int64_t last_tile = tiles_before_ + sum_to_lane(tiles);
      const int64_t last_row = rows_before_ + sum_to_lane(count);
      const unsigned reached = __ballot_sync(kAllLanes, tile < last_tile);
      if (reached != 0) {
        const int lane = __ffs(static_cast<int>(reached)) - 1;
        place = {base_ + lane, __shfl_sync(kAllLanes, last_row - count, lane),
                 __shfl_sync(kAllLanes, count, lane),
                 tile - __shfl_sync(kAllLanes, last_tile - tiles, lane)};
        return true;
      }
      tiles_before_ = __shfl_sync(kAllLanes, last_tile, 31);
      rows_before_ = __shfl_sync(kAllLanes, last_row, 31);
    }
    return false;
  }

 private:
  const int32_t* counts_;
  int num_segments_;
  int64_t tiles_of_columns_;
  int base_ = 0;
  int64_t tiles_before_ = 0;  // of the segments before base_
  int64_t rows_before_ = 0;
};

// --- rows times weights --------------------------------------------------------------------------

template <typename T>
struct Grouped {
  const T* rows;     // (S,K)
  const T* weights;  // (E,K,N), or (E,N,K)
  const int32_t* counts;
  int num_segments;
  int num_experts;
  int k;
  int n;
  bool rows_are_vectors;
  bool weights_are_vectors;
  Output<T> output;
};

template <typename Tile, bool kTransposed>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksPerMultiprocessor<Tile>)
    grouped_kernel(Grouped<typename Tile::Element> g) {
  TileFinder finder(g.counts, g.num_segments, (g.n + Tile::kColumns - 1) / Tile::kColumns);
  TilePlace place;
  for (int64_t tile = blockIdx.x; finder.template find<Tile::kRows>(tile, place);
       tile += gridDim.x) {
    const int64_t tiles_of_rows = (place.count + Tile::kRows - 1) / Tile::kRows;
    const auto first = static_cast<int>(place.tile % tiles_of_rows) * Tile::kRows;
    const auto column = static_cast<int>(place.tile / tiles_of_rows) * Tile::kColumns;
    const auto count = static_cast<int>(place.count) - first;
    const int64_t row = place.begin + first;
    const int64_t expert = place.segment % g.num_experts;
    const int64_t corner = kTransposed ? int64_t{column} * g.k : column;
    typename Tile::Sums sums;
    Tile::template multiply<false, !kTransposed>(
        sums, {g.rows + row * g.k, g.k, count, g.rows_are_vectors},
        {g.weights + expert * g.k * g.n + corner, kTransposed ? g.k : g.n, g.n - column,
         g.weights_are_vectors},
        g.k);
    Tile::for_each_pair(sums, [&](int i, int j, float left, float right) {
      if (i < count) g.output.store(row + i, column + j, left, right);
    });
  }
}

template <typename Tile, bool kTransposed>
void run_grouped(const Grouped<typename Tile::Element>& g, int64_t num_rows, const Queue& queue) {
  const int64_t tiles = (num_rows / Tile::kRows + g.num_segments) * divide_up(g.n, Tile::kColumns);
  const int64_t blocks =
      std::min<int64_t>(tiles, queue.num_multiprocessors * kBlocksPerMultiprocessor<Tile>);
  launch({static_cast<unsigned>(blocks), Tile::kThreads, Tile::kSharedBytes}, queue.stream,
         grouped_kernel<Tile, kTransposed>, g);
}

// --- gradients of weights ------------------------------------------------------------------------

template <typename T>
struct GroupedGrad {
  const T* rows;  // (S,K)
  const T* dy;    // (S,N)
  const int32_t* counts;
  int num_segments;
  int num_experts;
  int k;
  int n;
  bool rows_are_vectors;
  bool dy_are_vectors;
  Output<float> output;  // (E*K,N)
};

__device__ inline int64_t sum_of_counts(const int32_t* counts, int begin, int end) {
  int64_t sum = 0;
  for (int i = begin + static_cast<int>(threadIdx.x) % 32; i < end; i += 32) sum += counts[i];
  for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(kAllLanes, sum, bits);
  return sum;
}

// The depth is the rows of an expert: those that each rank has sent, in the order of ranks.
template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, kBlocksPerMultiprocessor<Tile>)
    grouped_grad_kernel(GroupedGrad<typename Tile::Element> g) {
  const int tiles_of_rows = (g.k + Tile::kRows - 1) / Tile::kRows;
  const int tiles = tiles_of_rows * ((g.n + Tile::kColumns - 1) / Tile::kColumns);
  for (int64_t tile = blockIdx.x; tile < int64_t{g.num_experts} * tiles; tile += gridDim.x) {
    const auto expert = static_cast<int>(tile / tiles), in = static_cast<int>(tile % tiles);
    const int first = in % tiles_of_rows * Tile::kRows;
    const int column = in / tiles_of_rows * Tile::kColumns;
    typename Tile::Sums sums;
    int64_t begin = 0;
    int counted = 0;
    for (int segment = expert; segment < g.num_segments; segment += g.num_experts) {
      begin += sum_of_counts(g.counts, counted, segment);
      counted = segment;
      Tile::template multiply<true, true>(
          sums, {g.rows + begin * g.k + first, g.k, g.k - first, g.rows_are_vectors},
          {g.dy + begin * g.n + column, g.n, g.n - column, g.dy_are_vectors}, g.counts[segment]);
    }
    Tile::for_each_pair(sums, [&](int i, int j, float left, float right) {
      if (first + i >= g.k) return;
      g.output.store(int64_t{expert} * g.k + first + i, column + j, left, right);
    });
  }
}

template <typename Tile>
void run_grouped_grad(const GroupedGrad<typename Tile::Element>& g, const Queue& queue) {
  const int64_t tiles =
      g.num_experts * divide_up(g.k, Tile::kRows) * divide_up(g.n, Tile::kColumns);
  const int64_t blocks =
      std::min<int64_t>(tiles, queue.num_multiprocessors * kBlocksPerMultiprocessor<Tile>);
  launch({static_cast<unsigned>(blocks), Tile::kThreads, Tile::kSharedBytes}, queue.stream,
         grouped_grad_kernel<Tile>, g);
}

// --- which tiles ---------------------------------------------------------------------------------

// body(Tile{}) with the tiles for an element type and a product of about (rows, columns).
template <typename T, typename Body>
void with_tile(int64_t rows, int64_t columns, const Body& body) {
  if constexpr (std::is_same_v<T, float>) {
    body(FmaTile{});
  } else if (rows >= 3 * LargeTile::kRows / 4 && columns >= 3 * LargeTile::kColumns / 4) {
    body(LargeTile{});
  } else {
    body(SmallTile{});
  }
}

template <typename T>
bool has_vectors(const TensorView& view) {
  return rows_are_vectors<T>(view.shape.back()) && is_vector_aligned(view.data);
}

const void* addend_of(Addend addend, const KernelArgs& args) {
  return addend == Addend::none ? nullptr : args.inputs.back().data;
}

}  // namespace

void run(const GroupedMatMul& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& rows = args.inputs[0];
  const TensorView& weights = args.inputs[1];
  const int64_t n = args.outputs[0].dim(1), num_experts = weights.dim(0);
  if (num_experts == 0) return;
  with_type(rows.dtype, [&](auto type) {
    using T = decltype(type);
    const Grouped<T> g{.rows = rows.as<T>(),
                       .weights = weights.as<T>(),
                       .counts = args.inputs[2].as<int32_t>(),
                       .num_segments = static_cast<int>(args.inputs[2].size()),
                       .num_experts = static_cast<int>(num_experts),
                       .k = static_cast<int>(rows.dim(1)),
                       .n = static_cast<int>(n),
                       .rows_are_vectors = has_vectors<T>(rows),
                       .weights_are_vectors = has_vectors<T>(weights),
                       .output = output_of<T>(args.outputs[0], addend_of(op.addend, args), n)};
    with_tile<T>(rows.dim(0) / num_experts, n, [&](auto tile) {
      using Tile = decltype(tile);
      op.transpose_b ? run_grouped<Tile, true>(g, rows.dim(0), queue)
                     : run_grouped<Tile, false>(g, rows.dim(0), queue);
    });
  });
}

void run(const GroupedMatMulGrad& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& rows = args.inputs[0];
  const TensorView& dy = args.inputs[1];
  with_type(rows.dtype, [&](auto type) {
    using T = decltype(type);
    const GroupedGrad<T> g{
        .rows = rows.as<T>(),
        .dy = dy.as<T>(),
        .counts = args.inputs[2].as<int32_t>(),
        .num_segments = static_cast<int>(args.inputs[2].size()),
        .num_experts = static_cast<int>(op.num_experts),
        .k = static_cast<int>(rows.dim(1)),
        .n = static_cast<int>(dy.dim(1)),
        .rows_are_vectors = has_vectors<T>(rows),
        .dy_are_vectors = has_vectors<T>(dy),
        .output = output_of<float>(args.outputs[0], addend_of(op.addend, args), dy.dim(1))};
    with_tile<T>(g.k, g.n, [&](auto tile) { run_grouped_grad<decltype(tile)>(g, queue); });
  });
}

}  // namespace caravan::cuda
