#include "runtime/cpu/simd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace caravan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Exp, WithinTwoUlp) {
  double worst = 0;
  for (float x = -87.3f; x < 88.0f; x += 0.00037f) {
    const double exact = std::exp(static_cast<double>(x));
    const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
    worst = std::max(worst, std::abs(cpu::fast_exp_bounded(x) - exact) / ulp);
  }
  EXPECT_LE(worst, 2.0);
}

TEST(Exp, EndsOfTheRange) {
  EXPECT_EQ(cpu::fast_exp_bounded(0.0f), 1.0f);
  EXPECT_EQ(cpu::fast_exp_bounded(-kInfinity), 0.0f);
  EXPECT_EQ(cpu::fast_exp_bounded(-87.34f), 0.0f);
  EXPECT_EQ(cpu::fast_exp_bounded(-1e30f), 0.0f);
  EXPECT_GT(cpu::fast_exp_bounded(-87.33f), 0.0f);
  EXPECT_LT(cpu::fast_exp_bounded(88.0f), kInfinity);
  EXPECT_TRUE(std::isnan(cpu::fast_exp_bounded(std::nanf(""))));
}

}  // namespace
}  // namespace caravan
