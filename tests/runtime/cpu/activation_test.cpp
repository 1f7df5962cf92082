#include <cmath>
#include <limits>

#include "runtime/cpu/simd.h"
#include "tests/runtime/cpu/op_check.h"

namespace caravan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(CpuExp, WithinTwoUlp) {
  double worst = 0;
  for (float x = -87.3f; x < 88.0f; x += 0.00037f) {
    const double exact = std::exp(static_cast<double>(x));
    const double ulp = std::ldexp(1.0, std::ilogb(exact) - 23);
    worst = std::max(worst, std::abs(cpu::fast_exp_bounded(x) - exact) / ulp);
  }
  EXPECT_LE(worst, 2.0);
}

TEST(CpuExp, EndsOfTheRange) {
  EXPECT_EQ(cpu::fast_exp_bounded(0.0f), 1.0f);
  EXPECT_EQ(cpu::fast_exp_bounded(-kInfinity), 0.0f);
  EXPECT_EQ(cpu::fast_exp_bounded(-87.34f), 0.0f);
  EXPECT_EQ(cpu::fast_exp_bounded(-1e30f), 0.0f);
  EXPECT_GT(cpu::fast_exp_bounded(-87.33f), 0.0f);
  EXPECT_LT(cpu::fast_exp_bounded(88.0f), kInfinity);
  EXPECT_TRUE(std::isnan(cpu::fast_exp_bounded(std::nanf(""))));
}

TEST(CpuSwiGlu, OddSizesAndLargeGates) {
  for (const Shape& shape : {Shape{1, 1}, {7, 129}, {40, 1000}}) {
    const Tensor gate = normal(shape, 1, 8.0);
    const Tensor up = normal(shape, 2);
    check_op(SwiGlu{}, {{gate, up}, {shape}, {}, 1e-6});
    check_op(SwiGluGrad{}, {{gate, up, normal(shape, 3)}, {shape, shape}, {}, 1e-6});
  }
}

TEST(CpuSwiGlu, SaturatedGates) {
  Tensor gate = filled({1, 4}, 0.0f);
  gate.at(0) = -200.0f;
  gate.at(1) = 200.0f;
  const auto y = run_kernel(SwiGlu{}, {{gate, filled({1, 4}, 2.0f)}, {{1, 4}}}, 1);
  EXPECT_EQ(y[0].at(0), 0.0f);
  EXPECT_EQ(y[0].at(1), 400.0f);
}

TEST(CpuAdd, Exact) {
  check_op(Add{}, {{normal({77, 301}, 1), normal({77, 301}, 2)}, {{77, 301}}, {}, 0});
}

}  // namespace
}  // namespace caravan
