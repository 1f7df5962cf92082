#include <cmath>

#include "runtime/error.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

struct Sizes {
  int64_t num_tokens;
  int64_t width;
  int64_t vocab_size;
};

constexpr float kDloss = 0.37f;

Tensor rows_of(const Tensor& matrix, int64_t begin, int64_t end) {
  const int64_t width = matrix.shape[1];
  Tensor rows = empty({end - begin, width});
  for (int64_t i = 0; i < rows.size(); ++i) rows.at(i) = matrix.at(begin * width + i);
  return rows;
}

void check_loss(const Sizes& s, const Tensor& targets, double std = 1.0) {
  const Tensor x = normal({s.num_tokens, s.width}, 1, std);
  const Tensor weight = normal({s.vocab_size, s.width}, 2);
  const auto forward =
      check_op(LinearCrossEntropy{}, {{x, weight, targets}, {{}, {}}, {}, 1e-6 * std});
  const auto all = check_op(LinearCrossEntropyGrad{}, {{x, weight, targets, scalar(kDloss)},
                                                       {{}, {}, x.shape, weight.shape},
                                                       {},
                                                       3e-5 * std,
                                                       0,
                                                       kDloss});
  EXPECT_EQ(forward[0].at(0), all[0].at(0));
  EXPECT_EQ(forward[1].at(0), all[1].at(0));
}

TEST(LinearCrossEntropy, OddSizesWithPadding) {
  check_loss({1, 3, 2}, integers({1}));
  check_loss({70, 20, 37}, random_integers(70, -1, 37, 3));
  check_loss({200, 16, 1000}, random_integers(200, -1, 1000, 3));
}

TEST(LinearCrossEntropy, SeveralChunks) {
  check_loss({555, 8, 20011}, random_integers(555, -1, 20011, 3));
  check_loss({2200, 3, 5}, random_integers(2200, -1, 5, 3));
}

// More rows than a block of threads takes in one step, and a last step that is not full.
TEST(LinearCrossEntropy, WideRows) {
  check_loss({5, 8, 4097}, random_integers(5, 0, 4097, 3));
  check_loss({3, 4, 8200}, random_integers(3, -1, 8200, 3));
}

TEST(LinearCrossEntropy, LargeLogits) {
  check_loss({33, 16, 50}, random_integers(33, 0, 50, 3), 40.0);
}

TEST(LinearCrossEntropy, NothingButPadding) {
  const Tensor targets = integers(std::vector<int32_t>(12, -1));
  const Tensor x = normal({12, 8}, 1);
  const Tensor weight = normal({21, 8}, 2);
  const auto made = run_kernel(LinearCrossEntropyGrad{}, {{x, weight, targets, scalar(1.0f)},
                                                          {{}, {}, x.shape, weight.shape}});
  for (const Tensor& result : made) {
    for (int64_t i = 0; i < result.size(); ++i) ASSERT_EQ(result.at(i), 0.0f);
  }
}

TEST(LinearCrossEntropy, NoTokensGiveAZeroGradient) {
  const auto made = run_kernel(LinearCrossEntropyGrad{},
                               {{normal({0, 8}, 1), normal({21, 8}, 2), integers({}), scalar(1.0f)},
                                {{}, {}, {0, 8}, {21, 8}}});
  for (int64_t i = 0; i < made[3].size(); ++i) ASSERT_EQ(made[3].at(i), 0.0f);
}

// A row of the vocabulary that can never be drawn.
TEST(LinearCrossEntropy, InfinitelyUnlikelyToken) {
  const Tensor x = filled({1, 1}, 1.0f);
  Tensor weight = filled({3, 1}, 0.0f);
  weight.at(2) = -std::numeric_limits<float>::infinity();
  const OpCase c{{x, weight, integers({0})}, {{}, {}}};
  EXPECT_FLOAT_EQ(run_kernel(LinearCrossEntropy{}, c)[0].at(0), std::log(2.0f));
}

// Rows [0, rows) and the rest of a vocabulary on two ranks: together what one rank gives.
TEST(CrossEntropyPart, MergesToTheWholeLoss) {
  constexpr int64_t kTokens = 300, kWidth = 12, kVocab = 50;
  const Tensor x = normal({kTokens, kWidth}, 1), weight = normal({kVocab, kWidth}, 2);
  const Tensor targets = random_integers(kTokens, -1, kVocab, 3), dloss = scalar(0.37f);
  const auto whole = run_kernel(LinearCrossEntropyGrad{},
                                {{x, weight, targets, dloss}, {{}, {}, x.shape, weight.shape}});
  for (const int64_t rows : {25, 49}) {
    Tensor parts = empty({2, 2, kTokens});
    std::vector<Tensor> halves;
    for (const int64_t begin : {int64_t{0}, rows}) {
      Tensor half = rows_of(weight, begin, begin == 0 ? rows : kVocab);
      half.offset = {begin, 0};
      half.whole = weight.shape;
      const auto part = check_op(CrossEntropyPart{}, {{x, half, targets}, {{1, 2, kTokens}}});
      for (int64_t i = 0; i < 2 * kTokens; ++i) {
        parts.at((begin == 0 ? 0 : 2 * kTokens) + i) = part[0].at(i);
      }
      halves.push_back(half);
    }
    const auto merged = check_op(MergeCrossEntropy{}, {{parts, targets}, {{kTokens}, {}, {}}});
    EXPECT_NEAR(merged[1].at(0), whole[0].at(0), 1e-5 * whole[0].at(0));
    EXPECT_EQ(merged[2].at(0), whole[1].at(0));
    Tensor dx = filled(x.shape, 0.0f);
    for (const Tensor& half : halves) {
      const auto made = check_op(CrossEntropyPartGrad{},
                                 {{x, half, targets, merged[0], dloss}, {x.shape, half.shape}});
      for (int64_t i = 0; i < dx.size(); ++i) dx.at(i) += made[0].at(i);
      expect_close({made[1]}, {rows_of(whole[3], half.offset[0], half.offset[0] + half.shape[0])},
                   1e-5);
    }
    expect_close({dx}, {whole[2]}, 1e-5);
  }
}

TEST(LinearCrossEntropy, RefusesAPartOfTheVocabulary) {
  Tensor weight = normal({5, 4}, 2);
  weight.whole = {10, 4};
  const OpCase c{{normal({2, 4}, 1), weight, integers({0, 1})}, {{}, {}}};
  EXPECT_THROW(run_kernel(LinearCrossEntropy{}, c), Error);
}

}  // namespace
}  // namespace caravan
