#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

constexpr float kEps = 1e-5f;

TEST(RmsNorm, OddShapes) {
  for (const Shape& shape : {Shape{1, 1}, {33, 7}, {65, 384}, {200, 520}, {3, 1030}}) {
    const Tensor x = normal(shape, 1, 3.0);
    const Tensor weight = normal({shape[1]}, 2);
    const auto forward = check_op(RmsNorm{kEps}, {{x, weight}, {shape, {shape[0]}}, {}, 1e-6});
    check_op(RmsNormGrad{},
             {{x, weight, forward[1], normal(shape, 3)}, {shape, {shape[1]}}, {}, 3e-5, 0.1});
  }
}

// More columns than threads keep in registers, by vectors and one by one, and many rows.
TEST(RmsNorm, WideRowsAndManyRows) {
  for (const Shape& shape : {Shape{3, 33000}, {2, 4099}, {4500, 40}, {9000, 3}, {0, 64}}) {
    const Tensor x = normal(shape, 1, 3.0), weight = normal({shape[1]}, 2);
    const auto forward = check_op(RmsNorm{kEps}, {{x, weight}, {shape, {shape[0]}}, {}, 1e-6});
    check_op(RmsNormGrad{},
             {{x, weight, forward[1], normal(shape, 3)}, {shape, {shape[1]}}, {}, 3e-5, 0.1});
  }
}

TEST(RmsNorm, GradientAddsToWhatIsThere) {
  const Shape shape = {70, 50};
  const Tensor x = normal(shape, 1), weight = normal({50}, 2), addend = normal(shape, 4);
  const Tensor rstd = run_kernel(RmsNorm{kEps}, {{x, weight}, {shape, {70}}})[1];
  const std::vector<Tensor> inputs = {x, weight, rstd, normal(shape, 3), addend};
  check_op(RmsNormGrad{Addend::separate}, {inputs, {shape, {50}}, {}, 3e-5, 0.1});
  check_op(RmsNormGrad{Addend::in_place}, {inputs, {shape, {50}}, {{0, 4}}, 3e-5, 0.1});
}

TEST(RmsNorm, ZerosStayFinite) {
  const Tensor x = filled({4, 16}, 0.0f);
  const auto forward = check_op(RmsNorm{kEps}, {{x, filled({16}, 1.0f)}, {{4, 16}, {4}}});
  EXPECT_FLOAT_EQ(forward[1].at(0), 316.22776f);  // 1 / sqrt(eps)
}

TEST(HeadNorm, OddShapes) {
  for (const int64_t head_dim : {1, 2, 7, 64, 128, 1030}) {
    for (const int64_t heads : {1, 3}) {
      const Shape shape = {70, heads * head_dim}, by_head = {70, heads};
      const Tensor x = normal(shape, 1, 3.0);
      const auto forward = check_op(HeadNorm{head_dim, kEps}, {{x}, {shape, by_head}, {}, 1e-6});
      check_op(HeadNormGrad{head_dim}, {{x, forward[1], normal(shape, 3)}, {shape}, {}, 3e-5, 0.1});
    }
  }
}

// A head of zeros beside one of numbers: heads do not touch each other.
TEST(HeadNorm, EveryHeadByItself) {
  Tensor x = filled({2, 8}, 0.0f);
  for (int64_t i = 4; i < 8; ++i) x.at(i) = 2.0f;
  const auto y = check_op(HeadNorm{4, kEps}, {{x}, {{2, 8}, {2, 2}}});
  EXPECT_FLOAT_EQ(y[1].at(0), 316.22776f);  // 1 / sqrt(eps)
  EXPECT_NEAR(y[1].at(1), 0.5, 1e-5);
  EXPECT_EQ(y[0].at(3), 0.0f);
  EXPECT_NEAR(y[0].at(4), 1.0, 1e-5);
}

}  // namespace
}  // namespace caravan
