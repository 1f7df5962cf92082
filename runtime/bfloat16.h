// bf16: the upper half of an f32. For the CPU: casts, references and tests.
#pragma once

#include <bit>
#include <cstdint>

namespace caravan {

struct BFloat16 {
  uint16_t bits;
};

inline float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// To nearest, ties to even; too large becomes infinite. A NaN stays one: rounding would carry some
// over into infinity.
inline BFloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const bool is_nan = (bits & 0x7FFFFFFFU) > 0x7F800000U;
  const uint32_t rounded = is_nan ? bits | 0x00400000U : bits + 0x7FFFU + ((bits >> 16) & 1U);
  return {static_cast<uint16_t>(rounded >> 16)};
}

}  // namespace caravan
