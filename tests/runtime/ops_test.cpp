// Per op of the table: shapes, refused inputs, and gradients by finite differences.
#include <gtest/gtest.h>

#include <set>

#include "parallel/expand_experts.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/ops/rules.h"
#include "tests/runtime/ops_table.h"
#include "tests/support/finite_difference.h"

namespace caravan {
namespace {

class OpTest : public testing::TestWithParam<OpEntry> {};

std::string label(const testing::TestParamInfo<OpEntry>& info) { return info.param.label; }

TEST(OpsTable, HasEveryOp) {
  std::set<size_t> seen;
  for (const OpEntry& entry : ops_table()) seen.insert(entry.op.index());
  EXPECT_EQ(seen.size(), std::variant_size_v<Op>);
}

TEST(OpsTable, NamesAreUnique) {
  std::set<std::string_view> names;
  std::set<size_t> seen;
  for (const OpEntry& entry : ops_table()) {
    if (seen.insert(entry.op.index()).second) {
      EXPECT_TRUE(names.insert(name(entry.op)).second);
    }
  }
}

std::string message_of(const Op& op, const TensorSpecs& inputs, int axis_size) {
  try {
    infer(op, inputs, axis_size);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::internal);
    return error.what();
  }
  return "nothing was thrown";
}

TEST_P(OpTest, InfersShapes) {
  const OpEntry& c = GetParam();
  EXPECT_EQ(infer(c.op, specs_of(c), c.axis_size), c.outputs);
}

TEST_P(OpTest, RefusesWrongInputs) {
  const OpEntry& c = GetParam();
  for (const BadInput& bad : c.refused) {
    TensorSpecs inputs = specs_of(c);
    inputs[bad.input] = bad.spec;
    const std::string message = message_of(c.op, inputs, c.axis_size);
    EXPECT_NE(message.find(bad.message), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with("[" + std::string(name(c.op)) + "]")) << message;
    EXPECT_NE(message.find(to_string(bad.spec.shape)), std::string::npos) << message;
  }
}

TEST_P(OpTest, RefusesAnotherNumberOfInputs) {
  const OpEntry& c = GetParam();
  const bool any_number = std::holds_alternative<SquaredNorm>(c.op) ||
                          std::holds_alternative<AllReduce>(c.op) ||
                          std::holds_alternative<ReduceScatter>(c.op);
  if (any_number) return;
  TensorSpecs inputs = specs_of(c);
  inputs.push_back({{3}, DType::f32});
  const std::string message = message_of(c.op, inputs, c.axis_size);
  EXPECT_NE(message.find("needs "), std::string::npos) << message;
}

TEST_P(OpTest, CostsSomething) {
  const OpEntry& c = GetParam();
  const Cost estimate = cost(c.op, specs_of(c), c.outputs);
  EXPECT_GE(estimate.flops, 0);
  EXPECT_GT(estimate.bytes, 0);
}

// The op with all inputs as graph inputs, its first output, and the gradients that its rule gives
// for an output gradient that is an input too.
struct GradientGraph {
  NamedGraph graph{"op", {}};
  HostTensors inputs;
};

std::string input_name(size_t i) { return "in" + std::to_string(i); }
std::string gradient_name(size_t i) { return "gradient" + std::to_string(i); }

GradientGraph gradient_graph(const OpEntry& c) {
  GradientGraph result;
  Builder b(result.graph.graph);
  std::vector<Val> inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const TensorSpec spec = spec_of(c.inputs[i]);
    inputs.push_back(b.input(input_name(i), spec.shape, spec.dtype));
    result.inputs[input_name(i)] = make_tensor(c.inputs[i], i);
  }
  const std::vector<Val> outputs = b.emit(c.op, inputs);
  std::vector<Val> output_gradients(outputs.size(), Val::none);
  output_gradients[0] = b.input("dy", c.outputs[0].shape, DType::f32);
  result.inputs["dy"] = normal_tensor(c.outputs[0].shape, 99);
  const std::vector<Val> gradients = backward(c.op, {b, inputs, outputs, output_gradients});
  EXPECT_EQ(gradients.size(), inputs.size());
  b.output("y", outputs[0]);
  for (size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_EQ(gradients[i] != Val::none, c.inputs[i].differentiable) << "input " << i;
    if (gradients[i] == Val::none) continue;
    EXPECT_EQ(b.shape(gradients[i]), c.inputs[i].shape) << "input " << i;
    b.output(gradient_name(i), gradients[i]);
  }
  verify(result.graph.graph, "backward");
  result.graph.graph = expand_experts(std::move(result.graph.graph), Mesh{});
  return result;
}

TEST_P(OpTest, GradientsAgreeWithFiniteDifferences) {
  const OpEntry& c = GetParam();
  if (!is_differentiable(c)) {
    Graph graph;
    Builder b(graph);
    if (std::holds_alternative<Fill>(c.op)) return;  // no input, so no gradient
    EXPECT_THROW(backward(c.op, {b, {}, {}, {}}), Error);
    return;
  }
  const GradientGraph g = gradient_graph(c);
  run_on_ranks({g.graph}, Mesh{}, {.overlap = false}, [&](ProgramRunner& runner) {
    HostTensors inputs = g.inputs;
    const auto read = [&](const std::string& name) {
      const Executor& executor = runner.executor("op");
      const TensorView view = executor.view(executor.program().graph.output(name));
      HostTensor tensor = zeros(view.shape);
      std::copy_n(view.as<uint32_t>(), tensor.words.size(), tensor.words.begin());
      return tensor;
    };
    runner.run("op", inputs);
    HostTensors gradients;
    for (const auto& [name, id] : g.graph.graph.outputs) gradients[name] = read(name);
    for (size_t i = 0; i < c.inputs.size(); ++i) {
      if (!c.inputs[i].differentiable) continue;
      const HostTensor original = inputs[input_name(i)];
      const ScalarFunction f = [&](const HostTensor& x) {
        inputs[input_name(i)] = x;
        runner.run("op", inputs);
        return dot(inputs["dy"], read("y"));
      };
      EXPECT_LT(gradient_error(f, original, gradients[gradient_name(i)]), 2e-3) << "input " << i;
      inputs[input_name(i)] = original;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, OpTest, testing::ValuesIn(ops_table()), label);

}  // namespace
}  // namespace caravan
