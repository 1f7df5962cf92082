// The loss over a vocabulary that ranks share: what one rank gives, whichever axes share it and
// whichever split the tokens.
#include "parallel/expand_loss.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/parallelize.h"
#include "runtime/builder.h"
#include "runtime/passes/schedule.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

constexpr int64_t kTokens = 24, kWidth = 8, kVocab = 40;

struct Layout {
  Mesh mesh;
  Placement weight;
  Placement tokens;
};

// Both ops, so that each of them is expanded by itself.
Graph loss_graph(const Layout& layout) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {kTokens, kWidth}, DType::f32, layout.tokens);
  const Val weight = b.input("weight", {kVocab, kWidth}, DType::f32, layout.weight);
  const Val targets = b.input("targets", {kTokens}, DType::i32, layout.tokens);
  const Val dloss = b.input("dloss", {}, DType::f32);
  const std::vector<Val> loss = b.linear_cross_entropy(x, weight, targets);
  const std::vector<Val> all = b.emit(LinearCrossEntropyGrad{}, {x, weight, targets, dloss});
  b.output("loss_sum", loss[0]);
  b.output("num_valid", loss[1]);
  for (size_t i = 0; i < all.size(); ++i) b.output("all" + std::to_string(i), all[i]);
  return graph;
}

HostTensors run_loss(const Layout& layout) {
  const Graph graph = reorder(parallelize(loss_graph(layout), layout.mesh));
  verify(graph, "parallelize");
  std::vector<int32_t> targets;
  for (int32_t t = 0; t < kTokens; ++t) targets.push_back(t % 5 == 4 ? -1 : t * 7 % kVocab);
  const HostTensors inputs = {{"x", normal_tensor({kTokens, kWidth}, 1)},
                              {"weight", normal_tensor({kVocab, kWidth}, 2)},
                              {"targets", int_tensor(targets)},
                              {"dloss", scalar_tensor(0.37f)}};
  return run_on_ranks({{"loss", graph}}, layout.mesh, {}, [&](ProgramRunner& runner) {
    runner.run("loss", inputs);
    for (const auto& [name, id] : graph.outputs) runner.record_output(name, "loss", name);
  });
}

TEST(ExpandLoss, EqualsOneRank) {
  const HostTensors expected = run_loss({});
  const Placement none, dp = Placement{}.with(Axis::dp, shard(0));
  const Placement tp = Placement{}.with(Axis::tp, shard(0));
  const Placement tokens = dp.with(Axis::ep, shard(0));
  for (const Layout& layout : {Layout{Mesh{{1, 1, 2}}, tp, none}, Layout{Mesh{{1, 1, 4}}, tp, tp},
                               Layout{Mesh{{2, 1, 2}}, tp, dp}, Layout{Mesh{{2, 2, 2}}, tp, tokens},
                               Layout{Mesh{{2, 1, 2}}, dp.with(Axis::tp, shard(0)), none},
                               Layout{Mesh{{4, 1, 1}}, dp, dp}}) {
    SCOPED_TRACE(to_string(layout.mesh) + ", weight " + to_string(layout.weight));
    const HostTensors actual = run_loss(layout);
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_LT(relative_difference(actual.at(name), tensor), 1e-5) << name;
    }
  }
}

TEST(ExpandLoss, LeavesWholeVocabulariesAlone) {
  const Graph logical = loss_graph({});
  EXPECT_EQ(dump(expand_loss(logical, {})), dump(logical));
}

// Per token two numbers travel, and nothing that is made has all rows of the vocabulary.
TEST(ExpandLoss, GathersOneSmallTensor) {
  const Layout layout{Mesh{{1, 1, 4}}, Placement{}.with(Axis::tp, shard(0)), {}};
  Graph logical = loss_graph(layout);
  logical.outputs.resize(2);
  const Graph graph = parallelize(logical, layout.mesh);
  int num_gathers = 0;
  for (const Node& node : graph.nodes) {
    const Value& made = graph.value(node.outputs[0]);
    EXPECT_EQ(std::ranges::count(made.shape, kVocab), 0);
    if (!std::holds_alternative<AllGather>(node.op)) continue;
    ++num_gathers;
    EXPECT_EQ(made.shape, (Shape{4, 2, kTokens}));
  }
  EXPECT_EQ(num_gathers, 2);  // of the loss, and of the gradient
}

}  // namespace
}  // namespace caravan
