// Products of tiles of 64 x 64 on the plain multiply-add units, in true f32: for f32 of any width,
// and for bf16 whose rows are no whole vectors.
//
// A block has 256 threads; thread (y, x) = (thread / 16, thread % 16) has rows 4y ... 4y+3 and
// columns 4x ... 4x+3. Operands pass through shared memory in slices, so any head width works.
#pragma once

#include "runtime/cuda/attention_blocks.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda::simt {

inline constexpr int kThreads = 256;
inline constexpr int kTile = 64;
inline constexpr int kDepth = 32;           // of a slice
inline constexpr int kStride = kTile + 4;   // of shared rows: without bank conflicts
inline constexpr int kSliceFloats = 2 * kDepth * kStride;

// Shared memory of a block.
struct alignas(16) Shared {
  float slices[kSliceFloats];
  float weights[kTile * kStride];  // (inner, rows)
};

// `count` rows of `width` elements; beyond both there are zeros.
template <typename T>
struct Rows {
  const T* data;
  int64_t stride;
  int count;
  int width;
  __device__ float at(int row, int column) const {
    return row < count && column < width ? to_float(data[row * stride + column]) : 0.0f;
  }
};

__device__ inline int row_of_thread() { return static_cast<int>(threadIdx.x) / 16 * 4; }
__device__ inline int column_of_thread() { return static_cast<int>(threadIdx.x) % 16 * 4; }

__device__ inline float4 load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}

// Columns [column, column + kDepth) of 64 rows, to shared (kDepth, 64). 8 lanes read a sector of
// one row, and write to 8 x 4 different banks.
template <typename T>
__device__ void stage_transposed(const Rows<T>& rows, int column, float* shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < kDepth / 8; ++j) {
      const int row = warp * 8 + lane / 8 + 4 * i, depth = lane % 8 + 8 * j;
      shared[depth * kStride + row] = rows.at(row, column + depth);
    }
  }
}

// c (64,64) += a (64,h) * b (64,h)^T. All threads of the block call it.
template <typename T>
__device__ void multiply_rows(float (&c)[4][4], const Rows<T>& a, const Rows<T>& b,
                              Shared& shared) {
  float* const slice_a = shared.slices;
  float* const slice_b = slice_a + kDepth * kStride;
  for (int k = 0; k < a.width; k += kDepth) {
    __syncthreads();
    stage_transposed(a, k, slice_a);
    stage_transposed(b, k, slice_b);
    __syncthreads();
#pragma unroll 4
    for (int d = 0; d < kDepth; ++d) {
      const float4 x = load4(slice_a + d * kStride + row_of_thread());
      const float4 y = load4(slice_b + d * kStride + column_of_thread());
      const float left[4] = {x.x, x.y, x.z, x.w}, right[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) c[i][j] = fmaf(left[i], right[j], c[i][j]);
      }
    }
  }
}

// A thread's part of sums (64, kWidth): 4 rows, and 4 columns of every 64.
template <int kWidth>
using Sums = float[4][kWidth / kTile][4];

// sums += shared.weights^T (64 rows, 64 inner) * b (64 inner, kWidth columns from `column` on).
template <int kWidth, typename T>
__device__ void add_products(Sums<kWidth>& sums, const Rows<T>& b, int column, Shared& shared) {
  static_assert(kDepth * kWidth <= kSliceFloats);
  for (int first = 0; first < kTile; first += kDepth) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kDepth * kWidth; i += kThreads) {
      shared.slices[i] = b.at(first + i / kWidth, column + i % kWidth);
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      const float4 x = load4(shared.weights + (first + k) * kStride + row_of_thread());
      const float left[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int n = 0; n < kWidth / kTile; ++n) {
        const float4 y = load4(shared.slices + k * kWidth + n * kTile + column_of_thread());
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[i][n][0] = fmaf(left[i], y.x, sums[i][n][0]);
          sums[i][n][1] = fmaf(left[i], y.y, sums[i][n][1]);
          sums[i][n][2] = fmaf(left[i], y.z, sums[i][n][2]);
          sums[i][n][3] = fmaf(left[i], y.w, sums[i][n][3]);
        }
      }
    }
  }
}

// As the weights of the next add_products, whose rows are those of c, or its columns.
__device__ inline void share_weights(const float (&c)[4][4], Shared& shared) {
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    *reinterpret_cast<float4*>(shared.weights + (column_of_thread() + j) * kStride +
                               row_of_thread()) = {c[0][j], c[1][j], c[2][j], c[3][j]};
  }
}
__device__ inline void share_weights_transposed(const float (&c)[4][4], Shared& shared) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    *reinterpret_cast<float4*>(shared.weights + (row_of_thread() + i) * kStride +
                               column_of_thread()) = {c[i][0], c[i][1], c[i][2], c[i][3]};
  }
}

// Rows of sums times their factors, to rows of `width` columns from `column` on.
template <int kWidth, typename T>
__device__ void store_sums(const Sums<kWidth>& sums, const float (&factor)[4], int column,
                           const Rows<T>& rows, T* to) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = row_of_thread() + i;
    if (row >= rows.count) continue;
#pragma unroll
    for (int n = 0; n < kWidth / kTile; ++n) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = column + n * kTile + column_of_thread() + j;
        if (at < rows.width) to[row * rows.stride + at] = from_float<T>(sums[i][n][j] * factor[i]);
      }
    }
  }
}

// Over the 16 threads that share rows.
template <typename Operation>
__device__ float reduce_row(float value, Operation operation) {
  for (int bits = 8; bits > 0; bits /= 2) {
    value = operation(value, __shfl_xor_sync(kAllLanes, value, bits));
  }
  return value;
}

}  // namespace caravan::cuda::simt
