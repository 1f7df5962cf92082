#include "runtime/passes/recompute.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/builder.h"
#include "runtime/passes/autodiff.h"
#include "runtime/passes/merge_loss.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

template <typename OpStruct>
int64_t count(const Graph& graph) {
  return std::ranges::count_if(
      graph.nodes, [](const Node& node) { return std::holds_alternative<OpStruct>(node.op); });
}

TrainingRun run_with(bool recompute) {
  TrainingRun run = tiny_run();
  run.recompute = recompute;
  return run;
}

// Two layers have two norms and one swiglu each; the last norm's result goes to the loss alone.
TEST(Recompute, MakesNormsAndActivationsOfLayersTwice) {
  const Graph kept = logical_update_graph(run_with(false));
  const Graph made_again = logical_update_graph(run_with(true));
  EXPECT_EQ(count<RmsNorm>(made_again), count<RmsNorm>(kept) + 4);
  EXPECT_EQ(count<SwiGlu>(made_again), count<SwiGlu>(kept) + 2);
  EXPECT_EQ(made_again.nodes.size(), kept.nodes.size() + 6);
}

TEST(Recompute, NothingOfForwardIsReadInBackwardThen) {
  const Graph graph = logical_update_graph(run_with(true));
  const auto loss = std::ranges::find_if(graph.nodes, [](const Node& node) {
    return std::holds_alternative<LinearCrossEntropyGrad>(node.op);
  });
  for (auto node = graph.nodes.begin(); node != loss; ++node) {
    if (!std::holds_alternative<SwiGlu>(node->op) && !std::holds_alternative<RmsNorm>(node->op)) {
      continue;
    }
    for (auto later = loss + 1; later != graph.nodes.end(); ++later) {
      EXPECT_EQ(std::ranges::count(later->inputs, node->outputs[0]), 0) << node->scope;
    }
  }
}

TEST(Recompute, TrainsWithTheSameBitsOnAnyMesh) {
  for (const Mesh& mesh : {Mesh{}, Mesh{{2, 1, 1}}, Mesh{{1, 1, 2}}}) {
    std::vector<TrainingResult> results;
    for (const bool recompute : {false, true}) {
      TrainingRun run = run_with(recompute);
      run.mesh = mesh;
      results.push_back(train(run, {random_batch(run, 0), random_batch(run, 1)}));
    }
    EXPECT_EQ(results[0].losses, results[1].losses);
    EXPECT_EQ(results[0].persistent, results[1].persistent);
  }
}

TEST(Recompute, HoldsLess) {
  const auto backend = make_cpu_backend({});
  int64_t bytes[2];
  for (const bool recompute : {false, true}) {
    const auto planned =
        plan_programs(training_graphs(run_with(recompute)), Mesh{}, *backend, false);
    bytes[recompute] = planned.programs[0].plan.max_live_bytes;
  }
  EXPECT_LT(bytes[true], bytes[false]);
}

// What would have to be kept for it costs as much as the result.
TEST(Recompute, KeepsAResultWhoseInputsAreGone) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4, 8}, DType::f32, {});
  const Val gate = b.linear(x, b.parameter("gate", {8, 8}, {}));
  const Val hidden = b.swiglu(gate, gate);
  const Val loss = b.linear_cross_entropy(b.linear(hidden, b.parameter("w", {8, 8}, {})),
                                          b.parameter("head", {5, 8}, {}),
                                          b.input("targets", {4}, DType::i32))[0];
  Differentiated all = differentiate(std::move(graph), loss);
  std::erase_if(all.graph.nodes,  // as if nobody asked for the gradient of the gate
                [](const Node& node) { return std::holds_alternative<SwiGluGrad>(node.op); });
  const Graph merged = merge_loss(all.graph);
  EXPECT_EQ(count<SwiGlu>(recompute(merged)), 1);
}

}  // namespace
}  // namespace caravan
