// The tile kernels for vectors of any width, as templates of one translation unit: everything is
// in an unnamed namespace, since the same code is compiled for several instruction sets. For that
// reason it includes nothing with inline functions.
#pragma once

#include "runtime/cpu/gemm_kernel.h"

namespace caravan::cpu {
namespace {

template <int Lanes>
struct Vector {
  typedef float type __attribute__((vector_size(Lanes * 4), aligned(4), may_alias));
};

// The sums of a tile, two vectors wide, stay in registers: Rows * 2 of them.
template <int Lanes, int Rows>
struct TileSums {
  using V = typename Vector<Lanes>::type;
  V sum[Rows][2];

  void store(const GemmTile& tile) const {
    if (tile.columns < 2 * Lanes) return store_part(tile);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      V result[2] = {sum[i][0], sum[i][1]};
      if (tile.addend != nullptr) {
        const V* addend = reinterpret_cast<const V*>(tile.addend + i * tile.ld_addend);
        result[0] += addend[0];
        result[1] += addend[1];
      }
      V* c = reinterpret_cast<V*>(tile.c + i * tile.ldc);
      c[0] = result[0];
      c[1] = result[1];
    }
  }

  void store_part(const GemmTile& tile) const {
    float values[Rows][2 * Lanes];
    for (int i = 0; i < Rows; ++i) {
      *reinterpret_cast<V*>(values[i]) = sum[i][0];
      *reinterpret_cast<V*>(values[i] + Lanes) = sum[i][1];
    }
    for (int i = 0; i < Rows; ++i) {
      for (int64_t j = 0; j < tile.columns; ++j) {
        const float before = tile.addend == nullptr ? 0.0f : tile.addend[i * tile.ld_addend + j];
        tile.c[i * tile.ldc + j] = before + values[i][j];
      }
    }
  }
};

// Walks over the depths of a, whose rows are `stride` apart. One pointer for three rows: addresses
// are then a pointer, or that and the stride once or twice, which few registers hold.
template <int Rows>
struct StridedRows {
  static constexpr int kPointers = (Rows + 2) / 3;
  const float* first[kPointers];
  int64_t stride;

  explicit StridedRows(const GemmTile& tile) : stride(tile.row_stride) {
    for (int i = 0; i < kPointers; ++i) first[i] = tile.a + 3 * i * stride;
  }
  float row(int i) const { return first[i / 3][i % 3 * stride]; }
  void next() {
    asm("" : "+r"(stride));  // or the compiler makes a pointer for each row and spills them
#pragma GCC unroll 8
    for (int i = 0; i < kPointers; ++i) ++first[i];
  }
};

// The same of a that is packed, transposed.
template <int MaxRows>
struct PackedRows {
  const float* first;

  explicit PackedRows(const GemmTile& tile) : first(tile.a) {}
  float row(int i) const { return first[i]; }
  void next() { first += MaxRows; }
};

template <int Lanes, int Rows, typename RowsOfA>
void multiply_tile(const GemmTile& tile) {
  using V = typename Vector<Lanes>::type;
  constexpr int kColumns = 2 * Lanes;
  constexpr int kAhead = 8 * kColumns;  // floats of b to fetch before they are needed
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < tile.columns; j += 16) __builtin_prefetch(tile.c + i * tile.ldc + j, 1);
  }
  TileSums<Lanes, Rows> sums{};
  RowsOfA a(tile);
  const float* b = tile.b;
  for (int64_t k = 0; k < tile.depth; ++k, a.next(), b += kColumns) {
    const V b0 = *reinterpret_cast<const V*>(b);
    const V b1 = *reinterpret_cast<const V*>(b + Lanes);
    __builtin_prefetch(b + kAhead);
    if (kColumns > 16) __builtin_prefetch(b + kAhead + 16);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      sums.sum[i][0] += a.row(i) * b0;
      sums.sum[i][1] += a.row(i) * b1;
    }
  }
  sums.store(tile);
}

// The kernel for exactly the rows of the tile: at an edge no row is computed that nobody wants.
template <int Lanes, int MaxRows, int Rows = MaxRows>
void multiply_any(const GemmTile& tile) {
  if constexpr (Rows > 1) {
    if (tile.rows < Rows) return multiply_any<Lanes, MaxRows, Rows - 1>(tile);
  }
  if (tile.transposed_a) return multiply_tile<Lanes, Rows, PackedRows<MaxRows>>(tile);
  multiply_tile<Lanes, Rows, StridedRows<Rows>>(tile);
}

// The transpose of 8 x 8 floats: pairs of rows, then of pairs, then of quads are interleaved.
void transpose_8x8(const float* from, int64_t ld, float* to, int64_t ld_to) {
  using V = Vector<8>::type;
  typedef int Mask __attribute__((vector_size(32)));
  V quad[2][4];  // of rows 0-3 and of rows 4-7: columns (0,4), (1,5), (2,6), (3,7)
  for (int half = 0; half < 2; ++half) {
    // In place: no function returns vectors that the program's instruction set may not have.
    const float* const first = from + 4 * half * ld;
    const V r0 = *reinterpret_cast<const V*>(first);
    const V r1 = *reinterpret_cast<const V*>(first + ld);
    const V r2 = *reinterpret_cast<const V*>(first + 2 * ld);
    const V r3 = *reinterpret_cast<const V*>(first + 3 * ld);
    const V low01 = __builtin_shuffle(r0, r1, Mask{0, 8, 1, 9, 4, 12, 5, 13});
    const V high01 = __builtin_shuffle(r0, r1, Mask{2, 10, 3, 11, 6, 14, 7, 15});
    const V low23 = __builtin_shuffle(r2, r3, Mask{0, 8, 1, 9, 4, 12, 5, 13});
    const V high23 = __builtin_shuffle(r2, r3, Mask{2, 10, 3, 11, 6, 14, 7, 15});
    quad[half][0] = __builtin_shuffle(low01, low23, Mask{0, 1, 8, 9, 4, 5, 12, 13});
    quad[half][1] = __builtin_shuffle(low01, low23, Mask{2, 3, 10, 11, 6, 7, 14, 15});
    quad[half][2] = __builtin_shuffle(high01, high23, Mask{0, 1, 8, 9, 4, 5, 12, 13});
    quad[half][3] = __builtin_shuffle(high01, high23, Mask{2, 3, 10, 11, 6, 7, 14, 15});
  }
  for (int i = 0; i < 4; ++i) {
    const V a = quad[0][i], b = quad[1][i];
    *reinterpret_cast<V*>(to + i * ld_to) = __builtin_shuffle(a, b, Mask{0, 1, 2, 3, 8, 9, 10, 11});
    *reinterpret_cast<V*>(to + (i + 4) * ld_to) =
        __builtin_shuffle(a, b, Mask{4, 5, 6, 7, 12, 13, 14, 15});
  }
}

// Runs of a size that the compiler knows: calls of memmove took a tenth of a product's time.
template <int Columns>
void pack_runs(const float* source, int64_t ld, int64_t depth, int64_t columns, float* panel) {
  if (columns == Columns) {
    for (int64_t k = 0; k < depth; ++k) {
      __builtin_memcpy(panel + k * Columns, source + k * ld, Columns * sizeof(float));
    }
    return;
  }
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t j = 0; j < Columns; ++j) {
      panel[k * Columns + j] = j < columns ? source[k * ld + j] : 0.0f;
    }
  }
}

template <int Columns>
void pack_transposed(const float* source, int64_t ld, int64_t depth, int64_t columns,
                     float* panel) {
  const int64_t whole_depth = depth / 8 * 8;
  const int64_t whole_columns = columns / 8 * 8;
  for (int64_t j = 0; j < whole_columns; j += 8) {
    for (int64_t k = 0; k < whole_depth; k += 8) {
      transpose_8x8(source + j * ld + k, ld, panel + k * Columns + j, Columns);
    }
    for (int64_t k = whole_depth; k < depth; ++k) {
      for (int64_t i = j; i < j + 8; ++i) panel[k * Columns + i] = source[i * ld + k];
    }
  }
  for (int64_t j = whole_columns; j < Columns; ++j) {
    for (int64_t k = 0; k < depth; ++k) {
      panel[k * Columns + j] = j < columns ? source[j * ld + k] : 0.0f;
    }
  }
}

template <int Lanes, int MaxRows>
constexpr GemmKernel make_gemm_kernel(const char* name) {
  static_assert(MaxRows <= kMaxGemmRows && 2 * Lanes <= kMaxGemmColumns);
  constexpr int kColumns = 2 * Lanes;
  return {.name = name,
          .rows = MaxRows,
          .columns = kColumns,
          .multiply = multiply_any<Lanes, MaxRows>,
          .pack_columns = pack_runs<kColumns>,
          .pack_rows = pack_runs<MaxRows>,
          .pack_transposed = pack_transposed<kColumns>};
}

}  // namespace
}  // namespace caravan::cpu
