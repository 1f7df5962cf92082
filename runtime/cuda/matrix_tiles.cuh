// Tiles of a matrix product, summed up by a block: bf16 on the matrix units (MmaTile), f32 by plain
// multiply-adds (FmaTile). Both have the same members, so that a kernel is written once.
//
// A factor is stored by its outer index (rows of a, columns of b: the depth lies contiguous) or by
// depth (the outer index lies contiguous). What is beyond its end counts as zero and is not read.
#pragma once

#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/ptx.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda {

// The part of a factor that a tile needs.
template <typename T>
struct TileFactor {
  const T* data;  // first outer index, depth 0
  int stride;     // from a stored row to the next
  int outer;      // how many there are; tiles may want more
  bool vectors;   // stored rows are 16-byte aligned and a multiple of that
};

// kRows x kColumns, by kRowWarps x kColumnWarps warps. Per 16 of depth a warp of 64 x 64 reads 4
// KiB of shared memory for 65,536 multiply-adds, about what its bandwidth allows on Hopper; smaller
// warps are bound by it. Copies run kStages - 1 steps ahead.
template <int kRows_, int kColumns_, int kRowWarps, int kColumnWarps>
struct MmaTile {
  using Element = bf16;
  static constexpr int kRows = kRows_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kThreads = 32 * kRowWarps * kColumnWarps;
  static constexpr int kDepth = 32;
  static constexpr int kStages = 4;
  static constexpr int kStageElements = (kRows + kColumns) * kDepth;
  static constexpr int kSharedBytes = kStages * kStageElements * static_cast<int>(sizeof(bf16));

  static constexpr int kWarpRows = kRows / kRowWarps;
  static constexpr int kWarpColumns = kColumns / kColumnWarps;
  static constexpr int kHigh = kWarpRows / 16;
  static constexpr int kWide = kWarpColumns / 8;

  struct Sums {
    float at[kHigh][kWide][4] = {};
  };

  // In shared memory stored rows follow one another in chunks of 16 bytes. Chunks change places
  // within a row so that the 8 rows that load_matrices reads at once lie in different banks.
  template <int kChunks>
  static __device__ int chunk_at(int row, int chunk) {
    static_assert(kChunks >= 4);
    return row * kChunks + (chunk ^ (kChunks == 4 ? row / 2 % 4 : row % 8));
  }

  // The next kDepth of a factor, or the `depth` that is left, into a stage; moves on.
  template <int kOuter, bool kByDepth>
  static __device__ void load(bf16* stage, TileFactor<bf16>& factor, int depth) {
    constexpr int kStoredRows = kByDepth ? kDepth : kOuter;
    constexpr int kChunks = (kByDepth ? kOuter : kDepth) / 8;
    static_assert(kStoredRows * kChunks % kThreads == 0);
#pragma unroll
    for (int round = 0; round < kStoredRows * kChunks / kThreads; ++round) {
      const int i = round * kThreads + static_cast<int>(threadIdx.x);
      const int row = i / kChunks, chunk = i % kChunks;
      const bf16* const from = factor.data + int64_t{row} * factor.stride + chunk * 8;
      bf16* const to = stage + chunk_at<kChunks>(row, chunk) * 8;
      const int rows = kByDepth ? depth : factor.outer;
      const int columns = (kByDepth ? factor.outer : depth) - chunk * 8;
      if (factor.vectors) {
        const bool exists = row < rows && columns > 0;
        copy_async_16(to, exists ? from : factor.data, exists);
        continue;
      }
      for (int j = 0; j < 8; ++j) {
        to[j] = row < rows && j < columns ? from[j] : from_float<bf16>(0.0f);
      }
    }
    factor.data += kByDepth ? int64_t{kDepth} * factor.stride : kDepth;
  }

  // Rows [row, row + 16) of a, 16 of the depth.
  template <bool kByDepth>
  static __device__ void load_a(uint32_t (&fragment)[4], const bf16* stage, int row, int k) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int second = lane / 8 % 2, last = lane / 16, in = lane % 8;
    if constexpr (kByDepth) {
      const int at = chunk_at<kRows / 8>(k + last * 8 + in, row / 8 + second);
      load_matrices_transposed(fragment, stage + at * 8);
    } else {
      load_matrices(fragment,
                    stage + chunk_at<kDepth / 8>(row + second * 8 + in, k / 8 + last) * 8);
    }
  }

  // Columns [column, column + 16) of b, 16 of the depth: two tiles of 8 columns.
  template <bool kByDepth>
  static __device__ void load_b(uint32_t (&fragment)[4], const bf16* stage, int column, int k) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int second = lane / 8 % 2, last = lane / 16, in = lane % 8;
    if constexpr (kByDepth) {
      const int at = chunk_at<kColumns / 8>(k + second * 8 + in, column / 8 + last);
      load_matrices_transposed(fragment, stage + at * 8);
    } else {
      load_matrices(fragment,
                    stage + chunk_at<kDepth / 8>(column + last * 8 + in, k / 8 + second) * 8);
    }
  }

  static __device__ int first_row() {
    return static_cast<int>(threadIdx.x) / 32 / kColumnWarps * kWarpRows;
  }
  static __device__ int first_column() {
    return static_cast<int>(threadIdx.x) / 32 % kColumnWarps * kWarpColumns;
  }

  template <bool kAByDepth, bool kBByDepth>
  static __device__ void multiply_stage(Sums& sums, const bf16* stage) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[kHigh][4];
#pragma unroll
      for (int i = 0; i < kHigh; ++i) load_a<kAByDepth>(a[i], stage, first_row() + 16 * i, k);
#pragma unroll
      for (int j = 0; j < kWide; j += 2) {
        uint32_t b[4];
        load_b<kBByDepth>(b, stage + kRows * kDepth, first_column() + 8 * j, k);
#pragma unroll
        for (int i = 0; i < kHigh; ++i) {
          multiply_add(sums.at[i][j], a[i], b[0], b[1]);
          multiply_add(sums.at[i][j + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

  // By the whole block; uses all of its shared memory.
  template <bool kAByDepth, bool kBByDepth>
  static __device__ void multiply(Sums& sums, TileFactor<bf16> a, TileFactor<bf16> b, int depth) {
    bf16* const shared = shared_memory<bf16>();
    int left = depth;
    const auto load_next = [&](int slot) {
      bf16* const stage = shared + slot * kStageElements;
      if (left > 0) {
        load<kRows, kAByDepth>(stage, a, left);
        load<kColumns, kBByDepth>(stage + kRows * kDepth, b, left);
      }
      left -= kDepth;
      commit_copies();
    };
    __syncthreads();  // what lies there of an earlier product has been read
    for (int stage = 0; stage < kStages - 1; ++stage) load_next(stage);
    for (int begin = 0, slot = 0; begin < depth; begin += kDepth) {
      wait_for_copies<kStages - 2>();
      __syncthreads();  // the step is there for all, and all have read the one before
      load_next((slot + kStages - 1) % kStages);
      multiply_stage<kAByDepth, kBByDepth>(sums, shared + slot * kStageElements);
      slot = (slot + 1) % kStages;
    }
  }

  // body(row, column, value, value of the next column) for all that this thread has.
  template <typename Body>
  static __device__ void for_each_pair(const Sums& sums, const Body& body) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kHigh; ++i) {
      const int row = first_row() + 16 * i + lane / 4;
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const int column = first_column() + 8 * j + lane % 4 * 2;
        body(row, column, sums.at[i][j][0], sums.at[i][j][1]);
        body(row + 8, column, sums.at[i][j][2], sums.at[i][j][3]);
      }
    }
  }
};

// 64 x 64 in true f32: a thread has 4 x 4 of it. Not tuned further: large models train in bf16.
struct FmaTile {
  using Element = float;
  static constexpr int kRows = 64;
  static constexpr int kColumns = 64;
  static constexpr int kThreads = 256;
  static constexpr int kDepth = 16;
  static constexpr int kPadded = 64 + 4;
  static constexpr int kSharedBytes = 2 * kDepth * kPadded * static_cast<int>(sizeof(float));

  struct Sums {
    float at[4][4] = {};
  };

  // to[d][outer]
  template <bool kByDepth>
  static __device__ void load(float* to, const TileFactor<float>& factor, int begin, int depth) {
#pragma unroll
    for (int round = 0; round < 64 * kDepth / kThreads; ++round) {
      const int i = round * kThreads + static_cast<int>(threadIdx.x);
      const int outer = kByDepth ? i % 64 : i / kDepth;
      const int in = kByDepth ? i / 64 : i % kDepth;
      const int d = begin + in;
      const bool exists = outer < factor.outer && d < depth;
      const int64_t at =
          kByDepth ? int64_t{d} * factor.stride + outer : int64_t{outer} * factor.stride + d;
      to[in * kPadded + outer] = exists ? factor.data[at] : 0.0f;
    }
  }

  template <bool kAByDepth, bool kBByDepth>
  static __device__ void multiply(Sums& sums, const TileFactor<float>& a,
                                  const TileFactor<float>& b, int depth) {
    float* const rows = shared_memory<float>();
    float* const columns = rows + kDepth * kPadded;
    const int first_row = static_cast<int>(threadIdx.x) / 16 * 4;
    const int first_column = static_cast<int>(threadIdx.x) % 16 * 4;
    for (int begin = 0; begin < depth; begin += kDepth) {
      __syncthreads();
      load<kAByDepth>(rows, a, begin, depth);
      load<kBByDepth>(columns, b, begin, depth);
      __syncthreads();
#pragma unroll
      for (int d = 0; d < kDepth; ++d) {
        const Vector<float> left = load_vector(rows + d * kPadded + first_row);
        const Vector<float> right = load_vector(columns + d * kPadded + first_column);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sums.at[i][j] += left.at[i] * right.at[j];
        }
      }
    }
  }

  template <typename Body>
  static __device__ void for_each_pair(const Sums& sums, const Body& body) {
    const int row = static_cast<int>(threadIdx.x) / 16 * 4;
    const int column = static_cast<int>(threadIdx.x) % 16 * 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      body(row + i, column, sums.at[i][0], sums.at[i][1]);
      body(row + i, column + 2, sums.at[i][2], sums.at[i][3]);
    }
  }
};

}  // namespace caravan::cuda
