// The innermost loops of matrix products, built once per instruction set: one tile of c from
// operands that are packed for it. gemm.h cuts products into tiles.
#pragma once

#include <cstdint>

namespace caravan::cpu {

inline constexpr int64_t kMaxGemmDepth = 512;  // of a tile: a panel of `a` fits a level 1 cache
inline constexpr int64_t kMaxGemmRows = 14;
inline constexpr int64_t kMaxGemmColumns = 32;
// Between rows of a that are copied for a tile, in floats. An odd number of cache lines: rows lie
// in different sets of a cache.
inline constexpr int64_t kPackedRowStride = kMaxGemmDepth + 16;

// c = a b, or c = addend + a b.
struct GemmTile {
  int64_t rows = 0;     // 1 to the kernel's
  int64_t columns = 0;  // 1 to the kernel's
  int64_t depth = 0;    // 0 to kMaxGemmDepth
  bool transposed_a = false;
  const float* a = nullptr;       // (rows, depth), or transposed and packed (depth, kernel's rows)
  int64_t row_stride = 0;         // of a that is not transposed
  const float* b = nullptr;       // (depth, kernel's columns)
  const float* addend = nullptr;  // null: none; may be c
  int64_t ld_addend = 0;
  float* c = nullptr;
  int64_t ldc = 0;
};

struct GemmKernel {
  const char* name;
  int64_t rows;
  int64_t columns;
  void (*multiply)(const GemmTile& tile);
  // source (depth, columns), rows `ld` apart -> panel (depth, kernel's columns). Columns beyond
  // the number that there is become zero.
  void (*pack_columns)(const float* source, int64_t ld, int64_t depth, int64_t columns,
                       float* panel);
  // The same for a transposed a: source (depth, rows) -> panel (depth, kernel's rows).
  void (*pack_rows)(const float* source, int64_t ld, int64_t depth, int64_t rows, float* panel);
  // The same as pack_columns of a source that is stored (columns, depth).
  void (*pack_transposed)(const float* source, int64_t ld, int64_t depth, int64_t columns,
                          float* panel);
};

const GemmKernel& plain_gemm_kernel();   // what the whole program is compiled for
const GemmKernel& avx512_gemm_kernel();  // only where has_avx512()
bool has_avx512();
const GemmKernel& best_gemm_kernel();  // that this CPU runs

}  // namespace caravan::cpu
