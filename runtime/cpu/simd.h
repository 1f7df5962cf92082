// Elementary functions that compilers can vectorise inside `#pragma omp simd` loops, and sums.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace caravan::cpu {

inline float power_of_two(int32_t exponent) { return std::bit_cast<float>((exponent + 127) << 23); }

// e^x = mantissa * 2^exponent: x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n e^r. The coefficients
// interpolate (e^r - 1 - r) / r^2 at the Chebyshev nodes of degree 4 (relative error 1e-8).
struct ExpParts {
  float mantissa;
  int32_t exponent;
};

inline ExpParts exp_parts(float x) {
  constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2^23: the addition rounds
  const float shifted = x * 1.44269504f + kRoundToInteger;
  const float n = shifted - kRoundToInteger;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;  // ln 2 in two parts
  float p = 0.001392617611993558f;
  p = p * r + 0.008363173074513711f;
  p = p * r + 0.041666554662050534f;
  p = p * r + 0.1666657702559799f;
  p = p * r + 0.5f;
  p = (p * r) * r + r + 1.0f;
  return {p, std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRoundToInteger)};
}

// e^x within 2 ulp for x <= 88: softmax takes differences to the largest number. Results below the
// smallest normal number are 0; NaN stays NaN.
inline float fast_exp_bounded(float x) {
  constexpr float kSmallest = -87.33654f;               // ln of the smallest normal number
  const float clamped = x < kSmallest ? kSmallest : x;  // in this form NaN passes through
  const ExpParts parts = exp_parts(clamped);
  const float y = parts.mantissa * power_of_two(parts.exponent);
  return x < kSmallest ? 0.0f : y;
}

// 1 / (1 + e^-x); below -88, where it is smaller than any normal number, 0.
inline float sigmoid(float x) {
  const float negated = -x > 88.0f ? 88.0f : -x;  // in this form NaN passes through
  return 1.0f / (1.0f + fast_exp_bounded(negated));
}

// A sum of float(i) for i in [0, n): float within 512 terms, double across. The order is fixed.
template <typename Term>
double blocked_sum(int64_t n, const Term& term) {
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += 512) {
    const int64_t end = std::min<int64_t>(n, begin + 512);
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = begin; i < end; ++i) part += term(i);
    sum += part;
  }
  return sum;
}

}  // namespace caravan::cpu
