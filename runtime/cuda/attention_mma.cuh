// Products of tiles in bf16 on the matrix units, with f32 sums. Rows are whole vectors (head widths
// that are multiples of 8), filled up with zeros to kWidth.
//
// A block has 4 warps, each with 16 rows of a product, or several times 16. Fragments: ptx.cuh.
#pragma once

#include "runtime/cuda/attention_blocks.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/ptx.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda::mma {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = kWarps * 32;
inline constexpr int kTile = 64;                // keys, or queries, of a step
inline constexpr int kTileColumns = kTile / 8;  // fragments beside each other

// Elements between rows in shared memory: an odd number of vectors, so that 8 rows of a column lie
// in different banks.
template <int kWidth>
inline constexpr int kStride = kWidth + 8;
template <int kWidth>
constexpr int tile_bytes(int rows) {
  return rows * kStride<kWidth> * static_cast<int>(sizeof(bf16));
}

// Whether a block can have so many dynamic bytes beside a few static ones.
inline bool fits(int bytes, const Queue& queue) {
  constexpr int64_t kStaticBytes = 2 << 10;
  return bytes + kStaticBytes <= queue.shared_bytes;
}

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % 32; }
__device__ inline int warp() { return static_cast<int>(threadIdx.x) / 32; }
// Of a fragment of sums: rows lane_row() and + 8, columns lane_column() and + 1.
__device__ inline int lane_row() { return lane() / 4; }
__device__ inline int lane_column() { return lane() % 4 * 2; }

// Begins to copy kRows rows; those from `count` on, and columns from head_dim on, are zeros.
template <int kWidth, int kRows>
__device__ void copy_tile(bf16* shared, const bf16* from, int64_t stride, int count, int head_dim) {
  constexpr int kVectors = kWidth / 8;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += kThreads) {
    const int row = i / kVectors, column = i % kVectors * 8;
    const bool valid = row < count && column < head_dim;
    copy_async_16(shared + row * kStride<kWidth> + column,
                  valid ? from + row * stride + column : from, valid);
  }
}

// A warp's sums: kRowTiles times 16 rows, kColumns times 8 columns.
template <int kRowTiles, int kColumns>
using Sums = float[kRowTiles][kColumns][4];
// The same rows as the left factor of a product over kSteps times 16.
template <int kRowTiles, int kSteps>
using Factor = uint32_t[kRowTiles][kSteps][4];

// sums += a * b^T over kWidth columns; `a`: the warp's first row.
template <int kWidth, int kRowTiles, int kColumns>
__device__ void multiply_rows(Sums<kRowTiles, kColumns>& sums, const bf16* a, const bf16* b) {
  const int matrix = lane() / 8, row = lane() % 8;
  const bf16* a_row = a + (matrix % 2 * 8 + row) * kStride<kWidth> + matrix / 2 * 8;
  const bf16* b_row = b + (matrix / 2 * 8 + row) * kStride<kWidth> + matrix % 2 * 8;
#pragma unroll 2
  for (int k = 0; k < kWidth; k += 16) {
    uint32_t left[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      load_matrices(left[m], a_row + m * 16 * kStride<kWidth> + k);
    }
#pragma unroll
    for (int n = 0; n < kColumns; n += 2) {
      uint32_t right[4];
      load_matrices(right, b_row + n * 8 * kStride<kWidth> + k);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        multiply_add(sums[m][n], left[m], right[0], right[1]);
        multiply_add(sums[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// sums += a * b, b of kSteps times 16 rows; `b`: the first of the columns wanted.
template <int kWidth, int kRowTiles, int kSteps, int kColumns>
__device__ void add_products(Sums<kRowTiles, kColumns>& sums, const Factor<kRowTiles, kSteps>& a,
                             const bf16* b) {
  const int matrix = lane() / 8, row = lane() % 8;
  const bf16* b_row = b + (matrix % 2 * 8 + row) * kStride<kWidth> + matrix / 2 * 8;
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int n = 0; n < kColumns; n += 2) {
      uint32_t right[4];
      load_matrices_transposed(right, b_row + k * 16 * kStride<kWidth> + n * 8);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        multiply_add(sums[m][n], a[m][k], right[0], right[1]);
        multiply_add(sums[m][n + 1], a[m][k], right[2], right[3]);
      }
    }
  }
}

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// Sums, rounded, as a factor.
template <int kRowTiles, int kSteps>
__device__ void to_factor(const Sums<kRowTiles, 2 * kSteps>& sums,
                          Factor<kRowTiles, kSteps>& factor) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      factor[m][k][0] = pack(sums[m][2 * k][0], sums[m][2 * k][1]);
      factor[m][k][1] = pack(sums[m][2 * k][2], sums[m][2 * k][3]);
      factor[m][k][2] = pack(sums[m][2 * k + 1][0], sums[m][2 * k + 1][1]);
      factor[m][k][3] = pack(sums[m][2 * k + 1][2], sums[m][2 * k + 1][3]);
    }
  }
}

// Rows lane_row() and + 8 of a 16-row tile times their factors; `to`: row 0 of the tile.
template <int kColumns>
__device__ void store_rows(const float (&sums)[kColumns][4], const float (&factor)[2], bf16* to,
                           int64_t stride, int count, int head_dim) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane_row() + 8 * half;
    if (row >= count) continue;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int column = 8 * n + lane_column();
      if (column >= head_dim) continue;
      const uint32_t pair =
          pack(sums[n][2 * half] * factor[half], sums[n][2 * half + 1] * factor[half]);
      *reinterpret_cast<uint32_t*>(to + row * stride + column) = pair;
    }
  }
}

}  // namespace caravan::cuda::mma
