// Elements of type f32 and bf16, and 16 bytes of them at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "runtime/cuda/check.h"
#include "runtime/types.h"

namespace caravan::cuda {

using bf16 = __nv_bfloat16;

__host__ __device__ inline float to_float(float x) { return x; }
__host__ __device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T>
__host__ __device__ T from_float(float x);
template <>
__host__ __device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__host__ __device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// What one thread loads or stores at once.
template <typename T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  T at[kSize];
};

// At a multiple of Vector<T>::kSize elements from an address that is 16-byte aligned.
template <typename T>
__device__ inline Vector<T> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <typename T>
__device__ inline void store_vector(T* to, const Vector<T>& vector) {
  *reinterpret_cast<Vector<T>*>(to) = vector;
}

// Whether rows of `columns` elements can be read by vectors.
template <typename T>
inline bool rows_are_vectors(int64_t columns) {
  return columns % Vector<T>::kSize == 0;
}
inline bool is_vector_aligned(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// body(T{}) with T = float or bf16.
template <typename Body>
void with_type(DType dtype, const Body& body) {
  check_that(dtype == DType::f32 || dtype == DType::bf16, "kernels compute in f32 and bf16");
  if (dtype == DType::f32) {
    body(float{});
  } else {
    body(bf16{});
  }
}

}  // namespace caravan::cuda
