// The emulator's version of runtime/cuda/ptx.cuh. Copies arrive as late as they may: when their
// thread waits for them.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>

#include "tests/cuda_emulator/device.h"

namespace caravan::cuda {

inline void copy_async_16(void* shared, const void* global, bool valid = true) {
  emulator::begin_copy(shared, valid ? global : nullptr, 16);
}
inline void commit_copies() { emulator::end_copy_group(); }
template <int kPending>
void wait_for_copies() {
  emulator::finish_copy_groups(kPending);
}

// Lane l's pointer is to row l % 8 of matrix l / 8.
inline void load_matrices(uint32_t (&fragment)[4], const void* row) {
  const int lane = emulator::lane();
  const std::byte* rows = emulator::warp_exchange(0xffffffffu, &row, sizeof(row));
  for (int m = 0; m < 4; ++m) {
    const char* from = nullptr;
    std::memcpy(&from, rows + static_cast<size_t>(8 * m + lane / 4) * emulator::kExchangeBytes,
                sizeof(from));
    std::memcpy(&fragment[m], from + static_cast<ptrdiff_t>(lane % 4) * 4, 4);
  }
  emulator::warp_barrier(0xffffffffu);  // nobody overwrites what another still reads
}
inline void load_matrices_transposed(uint32_t (&fragment)[4], const void* row) {
  const int lane = emulator::lane();
  const std::byte* rows = emulator::warp_exchange(0xffffffffu, &row, sizeof(row));
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {  // element (row 2t + i, column g) of the matrix
      const char* from = nullptr;
      const int source = 8 * m + 2 * (lane % 4) + i;
      std::memcpy(&from, rows + static_cast<size_t>(source) * emulator::kExchangeBytes,
                  sizeof(from));
      std::memcpy(&pair[i], from + static_cast<ptrdiff_t>(lane / 4) * 2, 2);
    }
    std::memcpy(&fragment[m], pair, 4);
  }
  emulator::warp_barrier(0xffffffffu);
}

inline float element(uint32_t pair, int i) {
  return std::bit_cast<float>((i == 0 ? pair << 16 : pair & 0xffff0000u));
}

inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Factors {
    uint32_t a[4];
    uint32_t b[2];
  };
  const Factors mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const std::byte* all = emulator::warp_exchange(0xffffffffu, &mine, sizeof(mine));
  const auto of = [&](int lane) {
    Factors factors;
    std::memcpy(&factors, all + static_cast<size_t>(lane) * emulator::kExchangeBytes,
                sizeof(factors));
    return factors;
  };
  const int g = emulator::lane() / 4, t = emulator::lane() % 4;
  for (int out = 0; out < 4; ++out) {
    const int row = g, high = out / 2, column = 2 * t + out % 2;
    float sum = c[out];
    for (int k = 0; k < 16; ++k) {
      const int pair = k % 8 / 2;
      const float left = element(of(4 * row + pair).a[high + 2 * (k / 8)], k % 2);
      const float right = element(of(4 * column + pair).b[k / 8], k % 2);
      sum += left * right;
    }
    c[out] = sum;
  }
  emulator::warp_barrier(0xffffffffu);
}

inline float fast_exp2(float x) { return std::exp2(x); }

}  // namespace caravan::cuda
