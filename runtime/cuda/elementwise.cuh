// Frames of kernels that are one pass over memory: every thread loads some packs of elements before
// it uses the first, so that many loads are on their way at once, and stores what a `Body` makes of
// them. One has flat tensors, the other knows rows and columns.
//
// A Body is a copyable struct with
//   kPacks                      of an input that a thread has on its way: 64 to 128 bytes in all
//   bool prepare()              once in a thread; false: nothing is to be done
//   load<kSize>(where...)       reads, and returns what it read
//   store(loaded, where...)     computes and writes
// Threads share nothing, so an output may lie where an input of the same elements does.
#pragma once

#include <cstring>

#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda {

// Elements that a thread loads or stores at once: 16 bytes at most.
template <typename T, int kElements>
struct alignas(kElements * sizeof(T)) Pack {
  static constexpr int kSize = kElements;
  T at[kElements];
};

template <int kSize, typename T>
__device__ inline Pack<T, kSize> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kSize>*>(from);
}
template <typename T, int kSize>
__device__ inline void store_pack(T* to, const Pack<T, kSize>& pack) {
  *reinterpret_cast<Pack<T, kSize>*>(to) = pack;
}

// From here on the compiler does not know that it has converted these elements before: across a
// barrier it would rather keep the wide results than convert again, in registers that are not
// there.
template <typename T, int kSize>
__device__ inline void stay_packed(Pack<T, kSize>& pack) {
  if constexpr (sizeof(pack) == 16) {
    uint32_t words[4];
    memcpy(words, &pack, sizeof(pack));
    for (uint32_t& word : words) asm volatile("" : "+r"(word));
    memcpy(&pack, words, sizeof(pack));
  }
}

// kSize f32 beside a pack of another type, in loads of 16 bytes at most.
template <int kSize>
struct Floats {
  float at[kSize];
};
template <int kSize>
__device__ inline Floats<kSize> load_floats(const float* from) {
  constexpr int kPart = kSize < 4 ? kSize : 4;
  Floats<kSize> all;
#pragma unroll
  for (int part = 0; part < kSize; part += kPart) {
    const Pack<float, kPart> pack = load_pack<kPart>(from + part);
#pragma unroll
    for (int i = 0; i < kPart; ++i) all.at[part + i] = pack.at[i];
  }
  return all;
}
template <int kSize>
__device__ inline void store_floats(float* to, const Floats<kSize>& all) {
  constexpr int kPart = kSize < 4 ? kSize : 4;
#pragma unroll
  for (int part = 0; part < kSize; part += kPart) {
    Pack<float, kPart> pack;
#pragma unroll
    for (int i = 0; i < kPart; ++i) pack.at[i] = all.at[part + i];
    store_pack(to + part, pack);
  }
}

// The largest pack of a type.
template <typename T>
inline constexpr int kFullPack = 16 / static_cast<int>(sizeof(T));

template <typename... Pointers>
bool are_vector_aligned(const Pointers*... pointers) {
  return (is_vector_aligned(pointers) && ...);
}

struct PlainBody {
  static constexpr int kPacks = 2;  // that a thread of a flat kernel loads of each input
  __device__ bool prepare() { return true; }
};

inline constexpr int kFrameThreads = 256;

// --- flat ----------------------------------------------------------------------------------------

template <int kSize, typename Body>
__global__ void __launch_bounds__(kFrameThreads) flat_kernel(Body body, int64_t size) {
  if (!body.prepare()) return;
  constexpr int kPacks = Body::kPacks, kStride = kFrameThreads * kSize;
  const int64_t first = int64_t{blockIdx.x} * kPacks * kStride + threadIdx.x * kSize;
  if ((int64_t{blockIdx.x} + 1) * kPacks * kStride <= size) {
    decltype(body.template load<kSize>(first)) loaded[kPacks];
#pragma unroll
    for (int i = 0; i < kPacks; ++i) loaded[i] = body.template load<kSize>(first + i * kStride);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) body.store(loaded[i], first + i * kStride);
    return;
  }
#pragma unroll 1
  for (int i = 0; i < kPacks; ++i) {  // the last block
    int64_t at = first + i * kStride;
    if (at + kSize <= size) {
      body.store(body.template load<kSize>(at), at);
    } else {
      for (; at < size; ++at) body.store(body.template load<1>(at), at);
    }
  }
}

// where: int64_t, the number of an element.
template <int kSize, typename Body>
void launch_flat(const Body& body, int64_t size, bool is_aligned, cudaStream_t stream) {
  const auto blocks = [&](int64_t elements) {
    return static_cast<unsigned>(divide_up(size, elements * kFrameThreads * Body::kPacks));
  };
  if (is_aligned) {
    launch({blocks(kSize), kFrameThreads}, stream, flat_kernel<kSize, Body>, body, size);
  } else {
    launch({blocks(1), kFrameThreads}, stream, flat_kernel<1, Body>, body, size);
  }
}

// --- rows ----------------------------------------------------------------------------------------

inline constexpr int kRowPacks = 4;  // of a thread: in as many rows

template <int kSize, typename Body>
__global__ void __launch_bounds__(kFrameThreads)
    rows_kernel(Body body, int64_t num_rows, int64_t width) {
  if (!body.prepare()) return;
  const int64_t column = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kSize;
  const int64_t first = int64_t{blockIdx.x} * kRowPacks * blockDim.y + threadIdx.y;
  if (column >= width) return;
  decltype(body.template load<kSize>(first, column)) loaded[kRowPacks] = {};
#pragma unroll
  for (int i = 0; i < kRowPacks; ++i) {
    const int64_t row = first + i * blockDim.y;
    if (row < num_rows) loaded[i] = body.template load<kSize>(row, column);
  }
#pragma unroll
  for (int i = 0; i < kRowPacks; ++i) {
    const int64_t row = first + i * blockDim.y;
    if (row < num_rows) body.store(loaded[i], row, column);
  }
}

template <int kSize, typename Body>
void launch_rows_by(const Body& body, int64_t num_rows, int64_t width, cudaStream_t stream) {
  const int64_t packs = divide_up(width, kSize);
  int lanes = 1;  // of a row
  while (lanes < packs && lanes < kFrameThreads) lanes *= 2;
  const int rows = kFrameThreads / lanes;
  const dim3 blocks(static_cast<unsigned>(divide_up(num_rows, rows * kRowPacks)),
                    static_cast<unsigned>(divide_up(packs, lanes)));
  launch({blocks, dim3(lanes, rows)}, stream, rows_kernel<kSize, Body>, body, num_rows, width);
}

// where: int64_t row and column. `is_aligned`: where tensors begin; the width is looked at here.
template <int kSize, typename Body>
void launch_rows(const Body& body, int64_t num_rows, int64_t width, bool is_aligned,
                 cudaStream_t stream) {
  if (is_aligned && width % kSize == 0) {
    launch_rows_by<kSize>(body, num_rows, width, stream);
  } else {
    launch_rows_by<1>(body, num_rows, width, stream);
  }
}

}  // namespace caravan::cuda
