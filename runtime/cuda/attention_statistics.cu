// Transposes statistics: 8 bytes for each token and head, little beside the 8 * h bytes that
// attention itself moves for them.
#include "runtime/cuda/attention_statistics.h"

#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda {
namespace {

constexpr int kTile = 32;
constexpr int kRowsAtOnce = 8;

// Through shared memory, so that both sides are read and written in whole sectors.
__global__ void __launch_bounds__(kTile* kRowsAtOnce)
    transpose_kernel(float* to, const float* from, const StatisticsShape shape, int64_t num_tiles) {
  __shared__ float tile[kTile][kTile + 1];
  const int x = static_cast<int>(threadIdx.x) % kTile, y = static_cast<int>(threadIdx.x) / kTile;
  const int across = (shape.columns + kTile - 1) / kTile, down = (shape.rows + kTile - 1) / kTile;
  for (int64_t i = blockIdx.x; i < num_tiles; i += gridDim.x) {
    const int column = static_cast<int>(i % across) * kTile;
    const int row = static_cast<int>(i / across % down) * kTile;
    const int64_t batch = i / across / down * shape.rows * shape.columns;
    __syncthreads();  // the last tile has been read
    for (int j = y; j < kTile; j += kRowsAtOnce) {
      if (row + j < shape.rows && column + x < shape.columns) {
        tile[j][x] = from[batch + int64_t{row + j} * shape.columns + column + x];
      }
    }
    __syncthreads();
    for (int j = y; j < kTile; j += kRowsAtOnce) {
      if (column + j < shape.columns && row + x < shape.rows) {
        to[batch + int64_t{column + j} * shape.rows + row + x] = tile[x][j];
      }
    }
  }
}

}  // namespace

void transpose_statistics(float* to, const float* from, const StatisticsShape& shape,
                          cudaStream_t stream) {
  const int64_t tiles =
      divide_up(shape.rows, kTile) * divide_up(shape.columns, kTile) * shape.batches;
  launch({static_cast<unsigned>(std::min<int64_t>(tiles, 4096)), kTile * kRowsAtOnce}, stream,
         transpose_kernel, to, from, shape, tiles);
}

}  // namespace caravan::cuda
