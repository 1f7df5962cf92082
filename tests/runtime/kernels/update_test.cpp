#include <cmath>

#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

TEST(Scalar, FillAndDivide) {
  EXPECT_EQ(check_op(Fill{2.5f}, {{}, {{}}})[0].at(0), 2.5f);
  EXPECT_EQ(check_op(Divide{}, {{scalar(3), scalar(4)}, {{}}})[0].at(0), 0.75f);
  EXPECT_EQ(check_op(Divide{}, {{scalar(3), scalar(0)}, {{}}})[0].at(0), 0.0f);
}

TEST(Accumulate, AddsInPlace) {
  const Shape shape{70, 501};
  for (const float keep : {1.0f, 0.5f}) {
    check_op(Accumulate{},
             {{normal(shape, 1), normal(shape, 2), scalar(keep)}, {shape}, {{0, 0}}, 1e-6});
  }
}

TEST(Accumulate, KeepZeroForgetsNaN) {
  const Tensor value = normal({40000}, 2);
  const auto sum =
      check_op(Accumulate{}, {{empty({40000}), value, scalar(0)}, {{40000}}, {{0, 0}}, 0});
  EXPECT_EQ(sum[0].words, value.words);
}

TEST(SquaredNorm, ManyValues) {
  const std::vector<Tensor> values = {normal({100, 501}, 1), normal({7}, 2), normal({16384}, 3),
                                      filled({0}, 0), normal({16385}, 4)};
  check_op(SquaredNorm{}, {values, {{}}, {}, 1e-6});
}

// More than one launch of any backend takes; none has anything.
TEST(SquaredNorm, HundredsOfValues) {
  std::vector<Tensor> values;
  for (int64_t i = 0; i < 300; ++i) values.push_back(normal({i % 40}, uint64_t(i)));
  check_op(SquaredNorm{}, {values, {{}}, {}, 1e-6});
  values[299].at(18) = NAN;
  EXPECT_TRUE(std::isnan(run_kernel(SquaredNorm{}, {values, {{}}})[0].at(0)));
  EXPECT_EQ(run_kernel(SquaredNorm{}, {{filled({0}, 0)}, {{}}})[0].at(0), 0.0f);
}

TEST(ClipScale, ClipsOnlyWhatIsLarger) {
  const auto clip = [](float max_norm, float squared, float num_valid) {
    return check_op(ClipScale{max_norm},
                    {{scalar(squared), scalar(num_valid), scalar(5)}, {{}, {}}, {}, 1e-6});
  };
  EXPECT_FLOAT_EQ(clip(1.0f, 400.0f, 10.0f)[0].at(0), 0.05f);  // norm 2 becomes 1
  EXPECT_FLOAT_EQ(clip(1.0f, 400.0f, 10.0f)[1].at(0), 2.0f);
  EXPECT_FLOAT_EQ(clip(3.0f, 400.0f, 10.0f)[0].at(0), 0.1f);
  EXPECT_FLOAT_EQ(clip(0.0f, 400.0f, 10.0f)[0].at(0), 0.1f);
  EXPECT_EQ(clip(1.0f, 0.0f, 0.0f)[0].at(0), 0.0f);
  EXPECT_EQ(clip(1.0f, 0.0f, 0.0f)[1].at(0), 0.0f);
}

OpCase adamw_case(int64_t size, float rate, float step) {
  Tensor v = normal({size}, 4);
  for (int64_t i = 0; i < size; ++i) v.at(i) = v.at(i) * v.at(i);
  return {{normal({size}, 1), normal({size}, 2), normal({size}, 3), v, scalar(0.25f), scalar(rate),
           scalar(step)},
          {{size}, {size}, {size}},
          {{0, 0}, {1, 2}, {2, 3}},
          1e-6};
}

TEST(AdamW, InPlaceAtEarlyAndLateSteps) {
  const AdamW op{0.9f, 0.95f, 1e-8f, 0.1f};
  for (const float step : {1.0f, 2.0f, 100000.0f}) {
    check_op(op, adamw_case(1, 1e-3f, step));
    check_op(op, adamw_case(40001, 1e-2f, step));
  }
}

// What is not finite must not reach the weights, whichever of loss and gradient shows it.
TEST(ClipScale, NoScaleWithoutAFiniteLossAndNorm) {
  for (const float max_norm : {0.0f, 1.0f}) {
    for (const auto& [squared, loss] :
         {std::pair{NAN, 1.0f}, {INFINITY, 1.0f}, {4.0f, NAN}, {4.0f, INFINITY}}) {
      const OpCase c{{scalar(squared), scalar(2), scalar(loss)}, {{}, {}}};
      const auto out = run_kernel(ClipScale{max_norm}, c);
      EXPECT_TRUE(std::isnan(out[0].at(0))) << squared << " " << loss;
    }
  }
}

TEST(AdamW, ChangesNothingWithoutAFiniteScale) {
  for (const float scale : {NAN, INFINITY}) {
    OpCase c = adamw_case(40001, 1e-2f, 3.0f);
    c.inputs[1].at(77) = NAN;
    c.inputs[4] = scalar(scale);
    const auto out = check_op(AdamW{0.9f, 0.95f, 1e-8f, 0.1f}, c);
    EXPECT_EQ(out[0].words, c.inputs[0].words);
    EXPECT_EQ(out[1].words, c.inputs[2].words);
    EXPECT_EQ(out[2].words, c.inputs[3].words);
  }
}

// From zero moments the first step moves every weight by the learning rate, after the decay.
TEST(AdamW, FirstStepByHand) {
  OpCase c = adamw_case(2, 0.1f, 1.0f);
  c.inputs[0] = filled({2}, 2.0f);
  c.inputs[1].at(0) = 12.0f;
  c.inputs[1].at(1) = -0.003f;
  c.inputs[2] = c.inputs[3] = filled({2}, 0.0f);
  const auto out = check_op(AdamW{0.9f, 0.999f, 1e-12f, 0.5f}, c);
  EXPECT_NEAR(out[0].at(0), 2.0f * 0.95f - 0.1f, 1e-6);
  EXPECT_NEAR(out[0].at(1), 2.0f * 0.95f + 0.1f, 1e-6);
}

}  // namespace
}  // namespace caravan
