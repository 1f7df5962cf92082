// Matrix products in row-major order on oneDNN's sgemm. Nothing here knows ops or tensors.
#pragma once

#include <cstdint>

#include "runtime/cpu/threads.h"

namespace caravan::cpu {

// c (m,n) = alpha * a (m,k) * b (k,n), added to c when `accumulate`. A transposed operand is stored
// (k,m) or (n,k); lda, ldb, ldc are the distances between stored rows.
struct Gemm {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  float alpha = 1;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  bool accumulate = false;
  float* c = nullptr;
  int64_t ldc = 0;
};

// On the calling thread, inside or outside of CpuThreads::for_each.
void gemm(const Gemm& product);

// On all threads: c is cut into tiles by its shape alone, so the bits of the result are the same
// for any number of threads.
void gemm(const Gemm& product, const CpuThreads& threads);

}  // namespace caravan::cpu
