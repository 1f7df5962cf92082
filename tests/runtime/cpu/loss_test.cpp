#include <cmath>

#include "runtime/error.h"
#include "tests/runtime/cpu/op_check.h"

namespace caravan {
namespace {

struct Sizes {
  int64_t num_tokens;
  int64_t width;
  int64_t vocab_size;
};

void check_loss(const Sizes& s, const Tensor& targets, double std = 1.0) {
  const Tensor x = normal({s.num_tokens, s.width}, 1, std);
  const Tensor weight = normal({s.vocab_size, s.width}, 2);
  const auto forward =
      check_op(LinearCrossEntropy{}, {{x, weight, targets}, {{}, {}}, {}, 1e-6 * std});
  const auto all = check_op(
      LinearCrossEntropyGrad{},
      {{x, weight, targets, scalar(0.37f)}, {{}, {}, x.shape, weight.shape}, {}, 3e-5 * std});
  EXPECT_EQ(forward[0].at(0), all[0].at(0));
  EXPECT_EQ(forward[1].at(0), all[1].at(0));
}

TEST(CpuLinearCrossEntropy, OddSizesWithPadding) {
  check_loss({1, 3, 2}, integers({1}));
  check_loss({70, 20, 37}, random_integers(70, -1, 37, 3));
  check_loss({200, 16, 1000}, random_integers(200, -1, 1000, 3));
}

TEST(CpuLinearCrossEntropy, SeveralChunks) {
  check_loss({555, 8, 20011}, random_integers(555, -1, 20011, 3));
  check_loss({1100, 3, 5}, random_integers(1100, -1, 5, 3));
}

TEST(CpuLinearCrossEntropy, LargeLogits) {
  check_loss({33, 16, 50}, random_integers(33, 0, 50, 3), 40.0);
}

TEST(CpuLinearCrossEntropy, NothingButPadding) {
  const Tensor targets = integers(std::vector<int32_t>(12, -1));
  const Tensor x = normal({12, 8}, 1);
  const Tensor weight = normal({21, 8}, 2);
  const auto made =
      run_kernel(LinearCrossEntropyGrad{},
                 {{x, weight, targets, scalar(1.0f)}, {{}, {}, x.shape, weight.shape}}, 1);
  for (const Tensor& result : made) {
    for (int64_t i = 0; i < result.size(); ++i) ASSERT_EQ(result.at(i), 0.0f);
  }
}

TEST(CpuLinearCrossEntropy, NoTokensGiveAZeroGradient) {
  const auto made = run_kernel(LinearCrossEntropyGrad{},
                               {{normal({0, 8}, 1), normal({21, 8}, 2), integers({}), scalar(1.0f)},
                                {{}, {}, {0, 8}, {21, 8}}},
                               2);
  for (int64_t i = 0; i < made[3].size(); ++i) ASSERT_EQ(made[3].at(i), 0.0f);
}

// A row of the vocabulary that can never be drawn.
TEST(CpuLinearCrossEntropy, InfinitelyUnlikelyToken) {
  const Tensor x = filled({1, 1}, 1.0f);
  Tensor weight = filled({3, 1}, 0.0f);
  weight.at(2) = -std::numeric_limits<float>::infinity();
  const OpCase c{{x, weight, integers({0})}, {{}, {}}};
  EXPECT_FLOAT_EQ(run_kernel(LinearCrossEntropy{}, c, 1)[0].at(0), std::log(2.0f));
}

TEST(CpuLinearCrossEntropy, TargetOutsideTheVocabulary) {
  const OpCase c{{normal({2, 4}, 1), normal({5, 4}, 2), integers({0, 5})}, {{}, {}}};
  EXPECT_THROW(run_kernel(LinearCrossEntropy{}, c, 1), Error);
}

}  // namespace
}  // namespace caravan
