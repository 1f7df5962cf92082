// Routing, sorting and products of experts against the plain loops. Passes beyond the first and
// ranks that exchange rows: tests/parallel/expand_experts_test.cpp.
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

Tensor as_shape(Tensor tensor, const Shape& shape) {
  tensor.shape = shape;
  return tensor;
}

TEST(Route, OddShapes) {
  for (const int64_t num_experts : {1, 3, 16, 130}) {
    for (const int64_t k : {1, 2, 3}) {
      if (k > num_experts) continue;
      const Tensor logits = normal({133, num_experts}, 1), bias = normal({num_experts}, 2);
      const std::vector<Shape> outputs = {{133, k}, {133, k}, {num_experts}};
      check_op(Route{.top_k = k}, {{logits}, outputs, {}, 1e-6});
      check_op(Route{.top_k = k}, {{logits, bias}, outputs, {}, 1e-6});
    }
  }
}

TEST(Route, ManyExpertsAndManyPicks) {
  const Tensor logits = normal({37, 515}, 1), bias = normal({515}, 2, 0.1);
  const std::vector<Shape> outputs = {{37, 20}, {37, 20}, {515}};
  check_op(Route{.top_k = 20}, {{logits, bias}, outputs, {}, 1e-6});
  check_op(Route{.top_k = 5}, {{normal({3, 5}, 1)}, {{3, 5}, {3, 5}, {5}}, {}, 1e-6});
  check_op(Route{.top_k = 2}, {{normal({0, 5}, 1)}, {{0, 2}, {0, 2}, {5}}, {}, 1e-6});
}

TEST(Route, BiasPicksButDoesNotScore) {
  Tensor logits = filled({1, 3}, 0.0f), bias = filled({3}, 0.0f);
  logits.at(0) = 1;
  bias.at(2) = 2;
  const auto routed = check_op(Route{.top_k = 1}, {{logits, bias}, {{1, 1}, {1, 1}, {3}}});
  EXPECT_EQ(routed[1].words[0], 2u);
  EXPECT_FLOAT_EQ(routed[0].at(0), 0.5f);  // the sigmoid of its logit, which is 0
}

TEST(Route, EqualLogitsPickTheFirstExperts) {
  const auto routed = check_op(Route{.top_k = 2}, {{filled({2, 4}, 0.0f)}, {{2, 2}, {2, 2}, {4}}});
  for (const size_t t : {0, 1}) {
    EXPECT_EQ(routed[1].words[2 * t], 0u);
    EXPECT_EQ(routed[1].words[2 * t + 1], 1u);
  }
}

// A sick step still picks experts that exist, each once.
TEST(Route, NaNPicksExperts) {
  const Tensor logits = filled({3, 4}, std::nanf(""));
  const auto routed = run_kernel(Route{.top_k = 3}, {{logits}, {{3, 3}, {3, 3}, {4}}});
  for (size_t t = 0; t < 3; ++t) {
    std::vector<uint32_t> picked(&routed[1].words[3 * t], &routed[1].words[3 * t] + 3);
    EXPECT_EQ(std::set(picked.begin(), picked.end()).size(), 3u);
    for (const uint32_t e : picked) EXPECT_LT(e, 4u);
  }
}

TEST(RouteGrad, EqualsNumericGradientsOfItsLosses) {
  const int64_t num_experts = 6, k = 2, tokens = 24;
  const Tensor logits = normal({tokens, num_experts}, 1);
  const Tensor experts =
      as_shape(random_integers(tokens * k, 0, static_cast<int32_t>(num_experts), 2), {tokens, k});
  const Tensor dscores = normal({tokens, k}, 3);
  for (const RouteGrad& op :
       {RouteGrad{}, RouteGrad{0.5f, 0, 8}, RouteGrad{0, 0.25f, 8}, RouteGrad{0.5f, 0.25f, 12}}) {
    check_op(op, {{logits, experts, dscores}, {{tokens, num_experts}}, {}, 1e-4, 0.01});
  }
}

// Of 8 tokens and 4 experts: none for the first, most for the third.
const std::vector<int32_t> kPicks = {2, 1, 2, 2, 3, 2, 1, 2};

struct Sorted {
  Tensor order, ends;
};
Sorted sorted(const Slots& slots, int64_t k = 1) {
  const Tensor experts = as_shape(integers(kPicks), {8 / k, k});
  auto out = run_kernel(Assign{slots, 4, {}}, {{experts}, {{8}, {4}, {}, {}}});
  for (Tensor* ids : {&out[0], &out[1]}) ids->dtype = DType::i32;
  return {out[0], out[1]};
}

TEST(Assign, SortsByExpertInTheOrderOfTokens) {
  const Tensor experts = as_shape(integers(kPicks), {8, 1});
  const auto out = check_op(Assign{{1, 1}, 4, {}}, {{experts}, {{8}, {4}, {}, {}}});
  const std::vector<uint32_t> order = {1, 6, 0, 2, 3, 5, 7, 4}, ends = {0, 2, 7, 8};
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(out[0].words[i], order[i]);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(out[1].words[i], ends[i]);
  EXPECT_EQ(out[2].at(0), 0);
  EXPECT_EQ(out[3].at(0), 0);
}

TEST(Assign, CountsFurtherPasses) {
  const Tensor experts = as_shape(integers(kPicks), {8, 1});
  for (const auto& [rows, further] : {std::pair{1, 7}, {2, 3}, {3, 2}, {7, 1}, {8, 0}, {9, 0}}) {
    const auto out = check_op(Assign{{8, rows}, 4, {}}, {{experts}, {{8}, {4}, {}, {}}});
    EXPECT_EQ(out[2].at(0), static_cast<float>(further)) << rows;
  }
}

TEST(Assign, DropsTheLastOfAnExpert) {
  const Sorted kept = sorted({8, 8, true});  // 2 rows for each expert
  const std::vector<uint32_t> order = {1, 6, 0, 2, 4}, ends = {0, 2, 4, 5};
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(kept.order.words[i], order[i]);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(kept.ends.words[i], ends[i]);
}

// More picks than one block of threads counts, more experts than one has threads.
TEST(Assign, ManyPicksAndExperts) {
  for (const auto& [tokens, k, num_experts] :
       {std::array{1500, 3, 7}, {700, 2, 1100}, {2100, 1, 2049}, {3000, 2, 1}}) {
    const Tensor experts = as_shape(random_integers(tokens * k, 0, num_experts, 1), {tokens, k});
    for (const bool drops : {false, true}) {
      const Slots slots{tokens, drops ? std::max(tokens / 2, num_experts) : tokens, drops};
      const auto out = run_kernel(Assign{slots, num_experts, {}},
                                  {{experts}, {{tokens * k}, {num_experts}, {}, {}}});
      const auto expected = run_reference(Assign{slots, num_experts, {}},
                                          {{experts}, {{tokens * k}, {num_experts}, {}, {}}});
      EXPECT_EQ(out[1].words, expected[1].words);
      for (size_t i = 0; i < expected[1].words[static_cast<size_t>(num_experts) - 1]; ++i) {
        ASSERT_EQ(out[0].words[i], expected[0].words[i]) << i;
      }
      EXPECT_EQ(out[2].words, expected[2].words);
      EXPECT_EQ(out[3].words, expected[3].words);
    }
  }
}

// Rows that are read by vectors, some of them several times by a thread; more picks of a token than
// are loaded together.
TEST(Dispatch, WideRowsThereAndBack) {
  for (const auto& [tokens, k, width] :
       {std::array{20, 1, 64}, {16, 6, 1032}, {33, 3, 2056}, {9, 5, 1031}}) {
    const Tensor experts = as_shape(random_integers(tokens * k, 0, 7, 1), {tokens, k});
    const Slots slots{tokens, tokens * k};
    auto sorted = run_kernel(Assign{slots, 7, {}}, {{experts}, {{tokens * k}, {7}, {}, {}}});
    for (Tensor* ids : {&sorted[0], &sorted[1]}) ids->dtype = DType::i32;
    const Tensor x = normal({tokens, width}, 1), scores = normal({tokens, k}, 2);
    const Tensor rows = normal({tokens * k, width}, 3), pass = scalar(0);
    check_op(Dispatch{slots, true, {}},
             {{x, scores, sorted[0], sorted[1], pass}, {rows.shape, {7}}, {}, 1e-6});
    check_op(Combine{k, {}, Addend::in_place},
             {{rows, sorted[0], sorted[1], pass, x}, {x.shape}, {{0, 4}}, 1e-5});
    std::vector<Tensor> inputs = {x, scores, sorted[0], sorted[1], pass, rows};
    check_op(DispatchGrad{false, {}}, {inputs, {x.shape, scores.shape}, {}, 2e-5});
    inputs.push_back(normal(x.shape, 4));
    inputs.push_back(normal(scores.shape, 5));
    check_op(DispatchGrad{true, {}}, {inputs, {x.shape, scores.shape}, {{0, 6}, {1, 7}}, 2e-5});
  }
}

TEST(Dispatch, RowsOfAFirstPass) {
  const Slots slots{8, 8};
  const Sorted s = sorted(slots);
  const Tensor x = normal({8, 70}, 1), scores = normal({8, 1}, 2);
  for (const bool weighted : {true, false}) {
    check_op(Dispatch{slots, weighted, {}},
             {{x, scores, s.order, s.ends, scalar(0)}, {{8, 70}, {4}}, {}, 1e-6});
  }
}

TEST(Dispatch, FurtherPassesTakeTheRest) {
  const Slots slots{8, 3};
  const Sorted s = sorted(slots);
  Tensor x = filled({8, 1}, 0.0f);
  for (int64_t t = 0; t < 8; ++t) x.at(t) = static_cast<float>(t);
  const auto rows = [&](float pass) {
    return run_kernel(Dispatch{slots, false, {}},
                      {{x, filled({8, 1}, 1.0f), s.order, s.ends, scalar(pass)}, {{3, 1}, {4}}});
  };
  const auto second = rows(1), third = rows(2);
  EXPECT_EQ(second[0].at(0), 2);  // order 1 6 0 | 2 3 5 | 7 4
  EXPECT_EQ(second[0].at(2), 5);
  EXPECT_EQ(second[1].words[2], 3u);
  EXPECT_EQ(third[0].at(0), 7);
  EXPECT_EQ(third[0].at(1), 4);
  EXPECT_EQ(third[1].words[2], 1u);
  EXPECT_EQ(third[1].words[3], 1u);
}

TEST(DispatchGrad, AddsUpByToken) {
  const Slots slots{4, 8};
  const Sorted s = sorted(slots, 2);
  const Tensor x = normal({4, 33}, 1), scores = normal({4, 2}, 2), drows = normal({8, 33}, 3);
  std::vector<Tensor> inputs = {x, scores, s.order, s.ends, scalar(0), drows};
  check_op(DispatchGrad{false, {}}, {inputs, {{4, 33}, {4, 2}}, {}, 1e-5});
  inputs.push_back(normal({4, 33}, 4));
  inputs.push_back(normal({4, 2}, 5));
  check_op(DispatchGrad{true, {}}, {inputs, {{4, 33}, {4, 2}}, {{0, 6}, {1, 7}}, 1e-5});
}

TEST(Combine, AddsUpByToken) {
  const Slots slots{4, 8};
  const Sorted s = sorted(slots, 2);
  std::vector<Tensor> inputs = {normal({8, 33}, 1), s.order, s.ends, scalar(0)};
  check_op(Combine{2, {}}, {inputs, {{4, 33}}, {}, 1e-5});
  inputs.push_back(normal({4, 33}, 2));
  check_op(Combine{2, {}, Addend::separate}, {inputs, {{4, 33}}, {}, 1e-5});
  check_op(Combine{2, {}, Addend::in_place}, {inputs, {{4, 33}}, {{0, 4}}, 1e-5});
}

struct Products {
  int64_t k, n;
  std::vector<int32_t> counts;  // by source and expert
};
void PrintTo(const Products& p, std::ostream* out) {
  *out << p.k << " to " << p.n << ", " << p.counts.size() << " counts";
}

class GroupedTest : public testing::TestWithParam<Products> {};

TEST_P(GroupedTest, EqualsProductsOfEachExpert) {
  const auto& [k, n, counts] = GetParam();
  const int64_t rows = std::accumulate(counts.begin(), counts.end(), int64_t{0}), experts = 3;
  const Tensor a = normal({rows, k}, 1), dy = normal({rows, n}, 2), c = integers(counts);
  for (const bool transposed : {false, true}) {
    const Shape stored = transposed ? Shape{experts, n, k} : Shape{experts, k, n};
    std::vector<Tensor> inputs = {a, normal(stored, 3), c};
    check_op(GroupedMatMul{transposed}, {inputs, {{rows, n}}, {}, 2e-5});
    inputs.push_back(normal({rows, n}, 4));
    check_op(GroupedMatMul{transposed, Addend::separate}, {inputs, {{rows, n}}, {}, 2e-5});
    check_op(GroupedMatMul{transposed, Addend::in_place}, {inputs, {{rows, n}}, {{0, 3}}, 2e-5});
  }
  std::vector<Tensor> inputs = {a, dy, c};
  const Shape weights = {experts, k, n};
  check_op(GroupedMatMulGrad{experts}, {inputs, {weights}, {}, 2e-5});
  inputs.push_back(normal(weights, 5));
  check_op(GroupedMatMulGrad{experts, Addend::separate}, {inputs, {weights}, {}, 2e-5});
  check_op(GroupedMatMulGrad{experts, Addend::in_place}, {inputs, {weights}, {{0, 3}}, 2e-5});
}

INSTANTIATE_TEST_SUITE_P(All, GroupedTest,
                         testing::Values(Products{5, 7, {1, 2, 3}}, Products{130, 33, {0, 300, 0}},
                                         Products{64, 48, {127, 0, 126}},
                                         Products{20, 40, {3, 0, 5, 0, 0, 0, 140, 2, 1}},
                                         Products{257, 130, {1, 1, 1}}));

// Tiles of a GPU: several of them both ways, of a depth that is no multiple of theirs; rows that
// are read by vectors, and rows that are not; more counts than a warp reads at a time.
INSTANTIATE_TEST_SUITE_P(
    ManyTiles, GroupedTest,
    testing::Values(Products{136, 264, {129, 1, 200}}, Products{101, 203, {120, 90, 110}},
                    Products{40, 72, {0, 0, 65}},
                    Products{24, 16, {3, 0, 1, 0, 2, 0, 1, 1, 1, 0, 0, 0, 4, 0, 7, 2, 0, 0,
                                      0, 9, 0, 1, 0, 0, 0, 0, 0, 5, 0, 1, 2, 2, 0, 0, 3, 70}}));

// Rows that nobody sent are neither read nor written.
TEST(GroupedMatMul, LeavesOutRowsOfNobody) {
  const Tensor a = normal({10, 4}, 1), weights = normal({2, 4, 3}, 2);
  const auto out = run_kernel(GroupedMatMul{false}, {{a, weights, integers({2, 3})}, {{10, 3}}});
  for (int64_t i = 0; i < 15; ++i) EXPECT_FALSE(std::isnan(out[0].at(i)));
  for (int64_t i = 15; i < 30; ++i) EXPECT_TRUE(std::isnan(out[0].at(i)));
}

TEST(UpdateRouterBias, MovesTowardsTheMeanLoad) {
  Tensor load = filled({4}, 2.0f);
  load.at(0) = 5;
  load.at(3) = 0;  // mean 2.25
  OpCase c{{filled({4}, 0.5f), load, scalar(1)}, {{4}}, {{0, 0}}};
  const auto bias = check_op(UpdateRouterBias{0.125f}, c);
  const std::vector<float> expected = {0.375f, 0.513889f, 0.513889f, 0.625f};
  for (int64_t e = 0; e < 4; ++e)
    EXPECT_NEAR(bias[0].at(e), expected[static_cast<size_t>(e)], 1e-6);
  c.inputs[2] = scalar(std::nanf(""));
  const auto kept = check_op(UpdateRouterBias{0.125f}, c);
  for (int64_t e = 0; e < 4; ++e) EXPECT_EQ(kept[0].at(e), 0.5f);
}

}  // namespace
}  // namespace caravan
