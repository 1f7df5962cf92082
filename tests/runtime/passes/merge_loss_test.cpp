#include "runtime/passes/merge_loss.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/builder.h"
#include "runtime/passes/autodiff.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

struct Model {
  Graph graph;
  Val loss;
  Val num_valid;
};

Model small_model() {
  Model model;
  Builder b(model.graph);
  const Val x = b.parameter("x", {6, 4}, {});
  const Val head = b.parameter("head", {5, 4}, {});
  const std::vector<Val> loss =
      b.linear_cross_entropy(x, head, b.input("targets", {6}, DType::i32));
  model.loss = loss[0];
  model.num_valid = loss[1];
  return model;
}

int64_t count_losses(const Graph& graph) {
  return std::ranges::count_if(graph.nodes, [](const Node& node) {
    return std::holds_alternative<LinearCrossEntropy>(node.op);
  });
}

// With the gradients of x and of the head as outputs.
Graph differentiated(const Model& model, Val root) {
  Differentiated result = differentiate(model.graph, root);
  result.graph.outputs = {{"loss", model.loss}, {"num_valid", model.num_valid}};
  for (const auto& [parameter, gradient] : result.gradients) {
    result.graph.outputs.emplace_back("d" + result.graph.value(parameter).name, gradient);
  }
  return result.graph;
}

HostTensors results_of(const Graph& graph) {
  return run_on_ranks({{"model", graph}}, Mesh{}, {}, [&](ProgramRunner& runner) {
    runner.set("x", normal_tensor({6, 4}, 1));
    runner.set("head", normal_tensor({5, 4}, 2));
    if (graph.find("second_head") != ValueId::none) {
      runner.set("second_head", normal_tensor({5, 4}, 3));
    }
    runner.run("model", {{"targets", int_tensor({0, 1, 2, -1, 4, 0})}});
    for (const auto& [name, id] : graph.outputs) runner.record_output(name, "model", name);
  });
}

TEST(MergeLoss, GivesTheSameNumbersFromOneOp) {
  const Model model = small_model();
  const Graph before = differentiated(model, model.loss);
  const Graph after = merge_loss(before);
  verify(after, "merge_loss");
  EXPECT_EQ(count_losses(before), 1);
  EXPECT_EQ(count_losses(after), 0);
  EXPECT_EQ(before.outputs, after.outputs);
  EXPECT_EQ(results_of(before), results_of(after));
}

TEST(MergeLoss, LeavesAnEvaluationAlone) {
  const Model model = small_model();
  EXPECT_EQ(dump(merge_loss(model.graph)), dump(model.graph));
}

// The gradient needs a number that is made from the loss: it cannot come first.
TEST(MergeLoss, KeepsALossWhoseGradientDependsOnIt) {
  Model model = small_model();
  Graph graph = differentiated(model, model.loss);
  for (Node& node : graph.nodes) {
    if (std::holds_alternative<LinearCrossEntropyGrad>(node.op)) node.inputs[3] = model.loss;
  }
  verify(graph, "test");
  EXPECT_EQ(count_losses(merge_loss(graph)), 1);
}

// Both losses' gradients read one dloss_sum; with equal heads even the two losses are alike.
TEST(MergeLoss, MergesEachOfTwoLosses) {
  for (const bool alike : {false, true}) {
    Model model = small_model();
    Builder b(model.graph);
    const Val x = model.graph.find("x"), targets = model.graph.find("targets");
    const Val head = alike ? model.graph.find("head") : b.parameter("second_head", {5, 4}, {});
    model.loss = b.add(model.loss, b.linear_cross_entropy(x, head, targets)[0]);
    const Graph before = differentiated(model, model.loss);
    const Graph after = merge_loss(before);
    verify(after, "merge_loss");
    EXPECT_EQ(count_losses(before), 2);
    EXPECT_EQ(count_losses(after), 0);
    EXPECT_EQ(after.nodes.size(), before.nodes.size() - 2);
    EXPECT_EQ(results_of(before), results_of(after));
  }
}

}  // namespace
}  // namespace caravan
