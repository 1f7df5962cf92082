// Experts on virtual ranks against a dense mixture in double: any mesh, any number of slots down to
// one, any routing. Checks the op, its gradient, and what they become.
#include "parallel/expand_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "parallel/parallelize.h"
#include "runtime/builder.h"
#include "runtime/ops/rules.h"
#include "runtime/passes/schedule.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

constexpr int64_t kTokens = 32, kHidden = 6, kWidth = 4, kExperts = 4, kSequence = 4;

struct Mixture {
  std::string label;
  int64_t k = 1;
  // By token and place: the expert, and its score.
  std::vector<int32_t> experts;
  Slots slots = {kSequence, kSequence};
};

struct Layout {
  std::string label;
  Mesh mesh;
};

const std::vector<std::string> kInputs = {"x", "scores", "experts", "gate", "up", "down", "dout"};
const std::vector<std::string> kResults = {"out", "dx", "dscores", "dgate", "dup", "ddown"};

HostTensors inputs_of(const Mixture& m) {
  HostTensors inputs;
  inputs["x"] = normal_tensor({kTokens, kHidden}, 1);
  inputs["scores"] = normal_tensor({kTokens, m.k}, 2);
  inputs["experts"] = int_tensor(m.experts);
  inputs["experts"].shape = {kTokens, m.k};
  inputs["gate"] = normal_tensor({kExperts, kHidden, kWidth}, 3);
  inputs["up"] = normal_tensor({kExperts, kHidden, kWidth}, 4);
  inputs["down"] = normal_tensor({kExperts, kWidth, kHidden}, 5);
  inputs["dout"] = normal_tensor({kTokens, kHidden}, 6);
  return inputs;
}

// --- the dense mixture, by its formula ----------------------------------------------------------

struct Dense {
  const HostTensors& in;
  std::map<std::string, std::vector<double>> sums;

  double value(const char* name, int64_t i) const { return in.at(name).at(i); }
  void add(const char* name, int64_t i, double more) { sums[name][static_cast<size_t>(i)] += more; }

  // Token t through expert e with the score number a, forward and backward.
  void apply(int64_t t, int64_t e, int64_t a) {
    const double s = value("scores", a);
    double dz[kHidden] = {};
    for (int64_t f = 0; f < kWidth; ++f) {
      double g = 0, u = 0, dh = 0;
      for (int64_t d = 0; d < kHidden; ++d) {
        const int64_t w = (e * kHidden + d) * kWidth + f;
        g += s * value("x", t * kHidden + d) * value("gate", w);
        u += s * value("x", t * kHidden + d) * value("up", w);
        dh += value("dout", t * kHidden + d) * value("down", (e * kWidth + f) * kHidden + d);
      }
      const double sigma = 1 / (1 + std::exp(-g)), h = g * sigma * u;
      const double dg = dh * u * sigma * (1 + g * (1 - sigma)), du = dh * g * sigma;
      for (int64_t d = 0; d < kHidden; ++d) {
        const int64_t w = (e * kHidden + d) * kWidth + f, v = (e * kWidth + f) * kHidden + d;
        const int64_t at = t * kHidden + d;
        add("out", at, h * value("down", v));
        add("ddown", v, h * value("dout", at));
        add("dgate", w, s * value("x", at) * dg);
        add("dup", w, s * value("x", at) * du);
        dz[d] += dg * value("gate", w) + du * value("up", w);
      }
    }
    for (int64_t d = 0; d < kHidden; ++d) {
      add("dx", t * kHidden + d, s * dz[d]);
      add("dscores", a, value("x", t * kHidden + d) * dz[d]);
    }
  }
};

// `room`: picks that an expert takes of each `tokens_of_a_rank` tokens.
HostTensors dense(const Mixture& m, int64_t room, int64_t tokens_of_a_rank) {
  const HostTensors inputs = inputs_of(m);
  Dense dense{inputs, {}};
  const std::map<std::string, std::string> like = {{"out", "x"},          {"dx", "x"},
                                                   {"dscores", "scores"}, {"dgate", "gate"},
                                                   {"dup", "up"},         {"ddown", "down"}};
  for (const auto& [name, other] : like) {
    dense.sums[name].resize(static_cast<size_t>(inputs.at(other).size()));
  }
  std::vector<int64_t> taken(kExperts, 0);
  for (int64_t t = 0; t < kTokens; ++t) {
    if (t % tokens_of_a_rank == 0) std::ranges::fill(taken, 0);
    for (int64_t a = t * m.k; a < (t + 1) * m.k; ++a) {
      const int32_t e = m.experts[static_cast<size_t>(a)];
      if (taken[static_cast<size_t>(e)]++ < room) dense.apply(t, e, a);
    }
  }
  HostTensors results;
  for (const auto& [name, other] : like) {
    HostTensor& tensor = results[name] = zeros(inputs.at(other).shape);
    for (int64_t i = 0; i < tensor.size(); ++i) {
      tensor.set(i, static_cast<float>(dense.sums[name][static_cast<size_t>(i)]));
    }
  }
  return results;
}

// --- the op --------------------------------------------------------------------------------------

Graph mixture_graph(const Mixture& m, const Mesh& mesh) {
  Graph graph;
  Builder b(graph);
  const Placement tokens = Placement{}.with(Axis::dp, shard(0)).with(Axis::ep, shard(0));
  const Placement columns = Placement{}.with(Axis::ep, shard(0)).with(Axis::tp, shard(2));
  const Placement rows = Placement{}.with(Axis::ep, shard(0)).with(Axis::tp, shard(1));
  const std::map<std::string, Placement> placements = {
      {"x", tokens},   {"scores", tokens}, {"experts", tokens}, {"gate", columns},
      {"up", columns}, {"down", rows},     {"dout", tokens}};
  std::vector<Val> in;
  for (const std::string& name : kInputs) {
    const HostTensor tensor = inputs_of(m).at(name);
    in.push_back(b.input(name, tensor.shape, tensor.dtype, placements.at(name)));
  }
  const Val dout = in.back();
  in.pop_back();
  const Experts op{m.slots, kExperts};
  const std::vector<Val> out = b.experts(in, op);
  std::vector<Val> output_gradients(out.size(), Val::none);
  output_gradients[0] = dout;
  const std::vector<Val> d = backward(op, {b, in, out, output_gradients});
  const std::vector<Val> results = {out[0], d[0], d[1], d[3], d[4], d[5]};
  for (size_t i = 0; i < kResults.size(); ++i) b.output(kResults[i], results[i]);
  b.output("dropped", out[1]);
  b.output("further", out[2]);
  Graph placed = parallelize(graph, mesh);
  verify(placed, "parallelize");
  placed = expand_experts(std::move(placed), mesh);
  verify(placed, "expand_experts");
  placed = reorder(std::move(placed));
  verify(placed, "schedule");
  return placed;
}

HostTensors run_mixture(const Mixture& m, const Mesh& mesh, int64_t times = 2) {
  const NamedGraph graph{"step", mixture_graph(m, mesh)};
  return run_on_ranks({graph}, mesh, {}, [&](ProgramRunner& runner) {
    for (int64_t i = 0; i < times; ++i) runner.run("step", inputs_of(m));
    for (const std::string& name : kResults) runner.record_output(name, "step", name);
    for (const char* name : {"dropped", "further"}) runner.record_output(name, "step", name);
  });
}

std::vector<int32_t> picks(int64_t k, const std::function<int32_t(int64_t t, int64_t j)>& expert) {
  std::vector<int32_t> all;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t j = 0; j < k; ++j) all.push_back(expert(t, j));
  }
  return all;
}

int32_t scattered(int64_t t, int64_t j) {
  return static_cast<int32_t>((t * t + 3 * t + j) % kExperts);
}

std::vector<Mixture> mixtures() {
  return {
      {"natural", 1, picks(1, scattered)},
      {"top_2", 2, picks(2, scattered), {kSequence, 2 * kSequence}},
      {"all_to_one", 1, picks(1, [](int64_t, int64_t) { return 2; })},
      {"no_token_for_two", 2, picks(2, [](int64_t, int64_t j) { return j == 0 ? 3 : 1; })},
      // The first half of the tokens picks one expert, the second another.
      {"none_on_one_rank", 1, picks(1, [](int64_t t, int64_t) { return t < kTokens / 2 ? 0 : 3; })},
      {"few_slots", 2, picks(2, scattered), {kTokens, 4}},
      {"many_slots", 1, picks(1, scattered), {kSequence, 4 * kSequence}},
  };
}

std::vector<Layout> layouts() {
  return {{"dp1", Mesh{}},          {"ep2", {{1, 2, 1}}},        {"ep4", {{1, 4, 1}}},
          {"tp2", {{1, 1, 2}}},     {"dp2_ep2", {{2, 2, 1}}},    {"dp2_tp2", {{2, 1, 2}}},
          {"ep2_tp2", {{1, 2, 2}}}, {"dp2_ep2_tp2", {{2, 2, 2}}}};
}

class ExpertsTest : public testing::TestWithParam<std::tuple<Mixture, Layout>> {};

TEST_P(ExpertsTest, EqualTheDenseMixture) {
  auto [mixture, layout] = GetParam();
  const int64_t sequences = layout.mesh.size(Axis::dp) * layout.mesh.size(Axis::ep);
  if (mixture.slots.sequence_len == kTokens) {  // slots for all tokens of a rank
    mixture.slots.sequence_len = kTokens / sequences;
  }
  const HostTensors actual = run_mixture(mixture, layout.mesh);
  for (const auto& [name, tensor] : dense(mixture, kTokens, kTokens)) {
    EXPECT_LT(relative_difference(actual.at(name), tensor), 1e-5) << name;
  }
  EXPECT_EQ(actual.at("dropped").at(0), 0);
}

INSTANTIATE_TEST_SUITE_P(
    All, ExpertsTest, testing::Combine(testing::ValuesIn(mixtures()), testing::ValuesIn(layouts())),
    [](const auto& info) {
      return std::get<0>(info.param).label + "_on_" + std::get<1>(info.param).label;
    });

// From one slot to more than enough: the same result, in as many passes as it takes.
TEST(ExpertsSlots, AnyNumberGivesTheSame) {
  Mixture m{"", 2, picks(2, scattered)};
  const HostTensors expected = dense(m, kTokens, kTokens);
  for (const int64_t slots : {1, 2, 3, 5, 17, 32, 63, 64, 100}) {
    m.slots = {kTokens, slots};
    const HostTensors actual = run_mixture(m, Mesh{});
    for (const auto& [name, tensor] : expected) {
      EXPECT_LT(relative_difference(actual.at(name), tensor), 1e-5) << name << ", " << slots;
    }
    const int64_t passes = (2 * kTokens + slots - 1) / slots;
    EXPECT_EQ(actual.at("further").at(0), static_cast<float>(passes - 1)) << slots;
  }
}

// Passes over the same rows: how many there will be does not show in the plan.
TEST(ExpertsSlots, OneSlotForEachPairOfRanks) {
  Mixture m{"", 1, picks(1, scattered)};
  const Mesh mesh{{1, 2, 1}};
  m.slots = {kTokens / 2, 2};  // of a rank: one for itself, one for the other
  const HostTensors actual = run_mixture(m, mesh);
  for (const auto& [name, tensor] : dense(m, kTokens, kTokens)) {
    EXPECT_LT(relative_difference(actual.at(name), tensor), 1e-5) << name;
  }
}

TEST(ExpertsSlots, DropWhatFindsNoRoom) {
  Mixture m{"", 1, picks(1, [](int64_t t, int64_t) { return t % 4 == 3 ? 1 : 2; })};
  for (const Layout& layout : layouts()) {
    SCOPED_TRACE(layout.label);
    const int64_t ranks = layout.mesh.size(Axis::dp) * layout.mesh.size(Axis::ep);
    const int64_t tokens = kTokens / ranks;
    m.slots = {kSequence, kExperts * 2, true};  // 2 of 4 tokens for each expert
    const int64_t room = 2 * tokens / kSequence;
    const HostTensors actual = run_mixture(m, layout.mesh);
    for (const auto& [name, tensor] : dense(m, room, tokens)) {
      EXPECT_LT(relative_difference(actual.at(name), tensor), 1e-5) << name;
    }
    // 3 of 4 tokens pick expert 2, which takes 2 of them.
    EXPECT_EQ(actual.at("dropped").at(0), kTokens / 4);
    EXPECT_EQ(actual.at("further").at(0), 0);
  }
}

// The last token of all finds no room: its expert gives it nothing and learns nothing from it.
TEST(ExpertsSlots, ADroppedTokenLeavesNoTrace) {
  Mixture m{"", 1, picks(1, [](int64_t, int64_t) { return 0; }), {kSequence, kExperts * 3, true}};
  const HostTensors actual = run_mixture(m, Mesh{});
  for (int64_t d = 0; d < kHidden; ++d) {
    EXPECT_EQ(actual.at("out").at((kTokens - 1) * kHidden + d), 0);
    EXPECT_EQ(actual.at("dx").at((kTokens - 1) * kHidden + d), 0);
  }
  EXPECT_EQ(actual.at("dscores").at(kTokens - 1), 0);
}

int64_t count_repeats(const Mixture& m, const Mesh& mesh) {
  return std::ssize(mixture_graph(m, mesh).repeats);
}

TEST(ExpertsGraph, RepeatsOnlyWhatMayNotFit) {
  Mixture m{"", 2, picks(2, scattered)};
  m.slots = {kSequence, 2 * kSequence};
  EXPECT_EQ(count_repeats(m, Mesh{}), 0);       // every pick has a row
  EXPECT_EQ(count_repeats(m, {{1, 2, 1}}), 2);  // all may be for one of the ranks
  EXPECT_EQ(count_repeats(m, {{2, 1, 1}}), 0);  // nothing travels
  m.slots.per_sequence = 4 * kSequence;
  EXPECT_EQ(count_repeats(m, {{1, 2, 1}}), 0);  // room for that, too
  EXPECT_EQ(count_repeats(m, {{1, 4, 1}}), 0);  // an expert on a rank, which a token picks once
  m.slots.per_sequence = 4 * kSequence - 1;
  EXPECT_EQ(count_repeats(m, {{1, 4, 1}}), 2);
  m.slots.drops = true;
  m.slots.per_sequence = kExperts;
  EXPECT_EQ(count_repeats(m, {{1, 2, 1}}), 0);  // what does not fit is dropped
}

TEST(ExpertsGraph, MemoryDoesNotDependOnTheRouting) {
  Mixture natural{"", 1, picks(1, scattered), {kTokens, 2}};
  Mixture skewed{"", 1, picks(1, [](int64_t, int64_t) { return 1; }), {kTokens, 2}};
  EXPECT_EQ(dump(mixture_graph(natural, Mesh{})), dump(mixture_graph(skewed, Mesh{})));
}

}  // namespace
}  // namespace caravan
