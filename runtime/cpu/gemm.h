// Matrix products in row-major order. Nothing here knows ops or tensors.
//
// The blocking is that of Goto & van de Geijn, "Anatomy of high-performance matrix multiplication"
// (2008): a block of b is packed once and stays in the last-level cache, panels of a few rows of a
// are packed where they are used. Sums over k are cut by k alone, so the bits of a result depend
// neither on the number of threads nor on how c is cut.
#pragma once

#include <cstdint>

#include "runtime/cpu/gemm_kernel.h"
#include "runtime/cpu/threads.h"

namespace caravan::cpu {

// A stored matrix; `ld` is the distance between stored rows.
struct Matrix {
  const float* data = nullptr;
  int64_t ld = 0;
  bool transposed = false;  // stored the other way round
};

// c (m,n) = a (m,k) b (k,n), or addend (m,n) + a b.
struct Gemm {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  Matrix a = {};
  Matrix b = {};
  const float* addend = nullptr;  // may be c; null: none
  int64_t ld_addend = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  const GemmKernel* kernel = &best_gemm_kernel();
};

// Floats of scratch memory that a product with these n and k needs, whatever its m.
int64_t gemm_scratch_floats(int64_t n, int64_t k, int num_threads);
void gemm(const Gemm& product, float* scratch, const CpuThreads& threads);

// For callers that use one b with many a: b is packed once.
struct PackedMatrix {
  const float* panels = nullptr;  // each (depth, kernel's columns)
  int64_t depth = 0;              // rows that were packed; a product may use some of them
};
int64_t packed_floats(int64_t n, int64_t k);
PackedMatrix pack(const Matrix& b, int64_t n, int64_t k, float* panels,
                  const GemmKernel& kernel = best_gemm_kernel());
// Columns from `column` on (a multiple of kMaxGemmColumns) and rows from `row` on.
PackedMatrix part_of(const PackedMatrix& b, int64_t row, int64_t column,
                     const GemmKernel& kernel = best_gemm_kernel());

inline constexpr int64_t kPanelFloats = kMaxGemmRows * kPackedRowStride;  // scratch of a thread
// The product on the calling thread with a packed b; product.b is not read.
void gemm_packed(const Gemm& product, const PackedMatrix& b, float* panel);

}  // namespace caravan::cpu
