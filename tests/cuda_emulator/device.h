// Device code on the CPU: what a kernel may use of CUDA C++, for kernels that g++ compiles as C++.
//
// Included before everything else in a translation unit of kernels (-include). The toolkit's own
// headers give types and conversions; here are the built-in variables, barriers, warp exchanges and
// intrinsics. A block's threads are fibers of one thread of the host (fibers.h), so a kernel's
// indexing, barriers and sums are those of the device; its speed, and races that need two blocks or
// a weak memory order, are not.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "tests/cuda_emulator/fibers.h"

// Shared by the threads of a block, of which a thread of the host runs one at a time.
#undef __shared__
#define __shared__ static thread_local
#undef __launch_bounds__
#define __launch_bounds__(...)

#undef __launch_bounds__
#define __launch_bounds__(...)

#undef __launch_bounds__
#define __launch_bounds__(...)

#define threadIdx (caravan::emulator::current_thread().thread)
#define blockIdx (caravan::emulator::current_thread().block)
#define blockDim (caravan::emulator::current_thread().block_dim)
#define gridDim (caravan::emulator::current_thread().grid_dim)
inline constexpr int warpSize = 32;

inline void __syncthreads() { caravan::emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { caravan::emulator::warp_barrier(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace caravan::emulator {

inline int lane() { return current_thread().lane; }

// What lane `from` of the warp passes; all lanes of the mask call it together.
template <typename T>
T exchange(unsigned mask, T value, int from) {
  static_assert(sizeof(T) <= kExchangeBytes && std::is_trivially_copyable_v<T>);
  const std::byte* all = warp_exchange(mask, &value, sizeof(T));
  T result;
  std::memcpy(&result, all + static_cast<size_t>(from) * kExchangeBytes, sizeof(T));
  return result;
}

}  // namespace caravan::emulator

// Lanes outside a group of `width` keep what they have, as on the device.
template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = caravan::emulator::lane();
  return caravan::emulator::exchange(mask, value, (lane & ~(width - 1)) + (from & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = caravan::emulator::lane(), from = lane ^ bits;
  const bool inside = (from & ~(width - 1)) <= (lane & ~(width - 1));
  return caravan::emulator::exchange(mask, value, inside ? from : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int lane = caravan::emulator::lane(), from = lane + static_cast<int>(by);
  const bool inside = (lane & (width - 1)) + static_cast<int>(by) < width;
  return caravan::emulator::exchange(mask, value, inside ? from : lane);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int lane = caravan::emulator::lane(), from = lane - static_cast<int>(by);
  const bool inside = (lane & (width - 1)) >= static_cast<int>(by);
  return caravan::emulator::exchange(mask, value, inside ? from : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const std::byte* all = caravan::emulator::warp_exchange(mask, &predicate, sizeof(predicate));
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) {
    int other = 0;
    std::memcpy(&other, all + i * caravan::emulator::kExchangeBytes, sizeof(other));
    if (((mask >> i) & 1u) != 0 && other != 0) result |= 1u << i;
  }
  return result;
}
// The lanes that pass the same value.
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  const std::byte* all = caravan::emulator::warp_exchange(mask, &value, sizeof(value));
  unsigned result = 0;
  for (int i = 0; i < 32; ++i) {
    const bool is_alike =
        std::memcmp(all + i * caravan::emulator::kExchangeBytes, &value, sizeof(value)) == 0;
    if (((mask >> i) & 1u) != 0 && is_alike) result |= 1u << i;
  }
  return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}

// --- arithmetic ----------------------------------------------------------------------------------
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(std::sin(M_PI * double{x}));
  *cosine = static_cast<float>(std::cos(M_PI * double{x}));
}
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}
inline long min(long a, int b) { return min(a, static_cast<long>(b)); }
inline long max(long a, int b) { return max(a, static_cast<long>(b)); }

// --- memory: one thread of the host runs at a time, so every access is atomic
// ----------------------
template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}
template <typename T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}
template <typename T>
T atomicMax(T* address, T value) {
  const T before = *address;
  *address = max(before, value);
  return before;
}
