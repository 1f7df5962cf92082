// Reverse mode on whole graphs; the rules of single ops are in ops_test.cpp.
#include "runtime/passes/autodiff.h"

#include <gtest/gtest.h>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/passes/prune.h"
#include "tests/support/finite_difference.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

constexpr int64_t kTokens = 6, kHidden = 4, kVocab = 5;

// x used three times, one weight twice, one parameter not at all: x + norm(x w) w + x.
struct Model {
  Graph graph;
  Val loss;
};

Model multi_use_model() {
  Model model;
  Builder b(model.graph);
  const Val x = b.parameter("x", {kTokens, kHidden}, {});
  const Val w = b.parameter("w", {kHidden, kHidden}, {});
  b.parameter("unused", {3}, {});
  const Val scale = b.parameter("norm", {kHidden}, {});
  const Val head = b.parameter("head", {kVocab, kHidden}, {});
  const Val targets = b.input("targets", {kTokens}, DType::i32);
  const Val hidden = b.linear(b.rms_norm(b.linear(x, w), scale, 1e-5f), w);
  const Val y = b.add(b.add(x, hidden), x);
  model.loss = b.linear_cross_entropy(y, head, targets)[0];
  return model;
}

TEST(Autodiff, AddsGradientsOfEveryUse) {
  const Model model = multi_use_model();
  Differentiated result = differentiate(model.graph, model.loss);
  result.graph.outputs = {{"loss", model.loss}};
  HostTensors parameters;
  for (const auto& [parameter, gradient] : result.gradients) {
    const Value& value = result.graph.value(parameter);
    result.graph.outputs.emplace_back("d" + value.name, gradient);
    parameters[value.name] = normal_tensor(value.shape, parameters.size());
  }
  const Graph graph = prune(result.graph);
  verify(graph, "autodiff");
  const HostTensors inputs = {{"targets", int_tensor({0, 1, 2, -1, 4, 0})}};
  const auto run = [&](const HostTensors& values) {
    return run_on_ranks({{"model", graph}}, Mesh{}, {}, [&](ProgramRunner& runner) {
      for (const auto& [name, tensor] : values) runner.set(name, tensor);
      runner.run("model", inputs);
      for (const auto& [name, id] : graph.outputs) runner.record_output(name, "model", name);
    });
  };
  const HostTensors gradients = run(parameters);
  for (const auto& [name, tensor] : parameters) {
    HostTensors moved = parameters;
    const ScalarFunction loss = [&](const HostTensor& value) {
      moved[name] = value;
      return double{run(moved).at("loss").at(0)};
    };
    EXPECT_LT(gradient_error(loss, tensor, gradients.at("d" + name)), 5e-3) << name;
  }
}

TEST(Autodiff, LeavesOutParametersThatTheLossDoesNotNeed) {
  const Model model = multi_use_model();
  const Differentiated result = differentiate(model.graph, model.loss);
  std::vector<std::string> names;
  for (const auto& [parameter, gradient] : result.gradients) {
    names.push_back(result.graph.value(parameter).name);
    EXPECT_EQ(result.graph.value(parameter).shape, result.graph.value(gradient).shape);
    EXPECT_EQ(result.graph.value(gradient).kind, ValueKind::gradient);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"x", "w", "norm", "head"}));  // as declared
}

TEST(Autodiff, KeepsTheForwardNodesAsTheyWere) {
  const Model model = multi_use_model();
  const Differentiated result = differentiate(model.graph, model.loss);
  Graph forward = result.graph;
  forward.nodes.resize(model.graph.nodes.size());
  EXPECT_EQ(dump(forward), dump(model.graph));
  for (size_t i = model.graph.nodes.size(); i < result.graph.nodes.size(); ++i) {
    for (const ValueId id : result.graph.nodes[i].outputs) {
      EXPECT_EQ(result.graph.value(id).kind, ValueKind::gradient);
    }
  }
}

// Gradients of what no parameter flows into are computed by some rules; nobody reads them.
TEST(Autodiff, PruneRemovesGradientsOfInputs) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {kTokens, kHidden}, DType::f32);
  const Val w = b.parameter("w", {kHidden, kHidden}, {});
  const Val head = b.parameter("head", {kVocab, kHidden}, {});
  const Val targets = b.input("targets", {kTokens}, DType::i32);
  const Val loss = b.linear_cross_entropy(b.linear(x, w), head, targets)[0];
  Differentiated result = differentiate(graph, loss);
  for (const auto& [parameter, gradient] : result.gradients) {
    result.graph.outputs.emplace_back("d", gradient);
  }
  size_t num_matmuls = 0;
  for (const Node& node : prune(result.graph).nodes) {
    if (std::holds_alternative<MatMul>(node.op)) ++num_matmuls;
  }
  EXPECT_EQ(num_matmuls, 2u);  // y and dw, not dx
}

TEST(Autodiff, RefusesALossThatIsNoScalar) {
  const Model model = multi_use_model();
  EXPECT_THROW(differentiate(model.graph, model.graph.find("x")), Error);
}

TEST(Prune, KeepsWhatOutputsAndUpdatesNeed) {
  Graph graph;
  Builder b(graph);
  const Val state = b.persistent(ValueKind::state, "state", {2}, {});
  const Val x = b.input("x", {2}, DType::f32);
  const Val needed = b.add(x, x);
  b.add(needed, x);  // nobody reads it
  b.update(state, b.accumulate(state, needed, b.fill(1)));
  b.output("one", b.fill(1));
  const Graph pruned = prune(graph);
  verify(pruned, "prune");
  EXPECT_EQ(graph.nodes.size(), 5u);
  EXPECT_EQ(pruned.nodes.size(), 4u);
  EXPECT_EQ(dump(prune(pruned)), dump(pruned));
}

}  // namespace
}  // namespace caravan
