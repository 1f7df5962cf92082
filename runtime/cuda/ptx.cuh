// Instructions that CUDA C++ has no name for. Tests have a version of this file for the CPU, see
// tests/cuda_emulator. Layouts of fragments: PTX ISA, "Matrix multiply-accumulate operation using
// mma instruction", m16n8k16.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace caravan::cuda {

// --- copies from global to shared memory that go on beside arithmetic
// ------------------------------ 16 bytes, both addresses aligned to 16; zeros where not `valid`
// (then nothing is read).
__device__ inline void copy_async_16(void* shared, const void* global, bool valid = true) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes)
               : "memory");
}
// Ends a group of the copies that this thread began.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Until at most `kPending` of this thread's newest groups are not done. Others see the bytes after
// a barrier.
template <int kPending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// --- fragments of matrices
// ------------------------------------------------------------------------- Four 8 x 8 matrices of
// 16-bit elements from shared memory; lane l gives the address of row l % 8 of matrix l / 8 (16
// bytes, aligned). Each lane gets elements 2 * (l % 4), + 1 of row l / 4 of each.
__device__ inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}
// The same of the transposed matrices.
__device__ inline void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// c (16,8) += a (16,16) * b (16,8), with g = lane / 4 and t = lane % 4:
//   a[0]: row g, columns 2t, 2t+1; a[1]: row g + 8; a[2], a[3]: the same rows, columns + 8
//   b0: rows 2t, 2t+1 of column g; b1: rows + 8
//   c[0], c[1]: row g, columns 2t, 2t+1; c[2], c[3]: row g + 8
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// --- arithmetic ---
// 2 to the power x, to two units in the last place; results below 2^-126 are 0.
__device__ inline float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace caravan::cuda
