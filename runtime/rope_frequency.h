// The frequencies of rotary position embeddings, the same on every device.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "runtime/ops.h"

namespace caravan {

inline double scaled_frequency(double frequency, const RopeScaling& s) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const auto context = static_cast<double>(s.original_max_position_embeddings);
  if (wavelength < context / s.high_freq_factor) return frequency;
  if (wavelength > context / s.low_freq_factor) return frequency / s.factor;
  // Between the two the factors differ, or one of the lines above had returned; at the very
  // boundary of equal factors nothing is blended.
  const double band = s.high_freq_factor - s.low_freq_factor;
  if (band == 0) return frequency;
  const double smooth = (context / wavelength - s.low_freq_factor) / band;
  return (1.0 - smooth) * frequency / s.factor + smooth * frequency;
}

// Radians from one position to the next, of a pair in [0, head_dim / 2).
inline double rope_frequency(const Rope& op, int64_t pair) {
  const double exponent = -2.0 * static_cast<double>(pair) / static_cast<double>(op.head_dim);
  const double plain = std::pow(op.theta, exponent);
  return op.scaling ? scaled_frequency(plain, *op.scaling) : plain;
}

}  // namespace caravan
