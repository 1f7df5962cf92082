#include <cmath>
#include <limits>

#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SwiGlu, OddSizesAndLargeGates) {
  for (const Shape& shape : {Shape{1, 1}, {7, 129}, {40, 1000}}) {
    const Tensor gate = normal(shape, 1, 8.0);
    const Tensor up = normal(shape, 2);
    check_op(SwiGlu{}, {{gate, up}, {shape}, {}, 1e-6});
    check_op(SwiGluGrad{}, {{gate, up, normal(shape, 3)}, {shape, shape}, {}, 1e-6});
  }
}

TEST(SwiGlu, SaturatedGates) {
  Tensor gate = filled({1, 4}, 0.0f);
  gate.at(0) = -200.0f;
  gate.at(1) = 200.0f;
  const auto y = run_kernel(SwiGlu{}, {{gate, filled({1, 4}, 2.0f)}, {{1, 4}}});
  EXPECT_EQ(y[0].at(0), 0.0f);
  EXPECT_EQ(y[0].at(1), 400.0f);
}

TEST(SwiGlu, NoRows) { check_op(SwiGlu{}, {{normal({0, 8}, 1), normal({0, 8}, 2)}, {{0, 8}}}); }

TEST(Add, Exact) {
  for (const Shape& shape : {Shape{77, 301}, {1, 5}, {3, 4096}, {0, 4}}) {
    check_op(Add{}, {{normal(shape, 1), normal(shape, 2)}, {shape}, {}, 0});
  }
}

}  // namespace
}  // namespace caravan
