// The update of a step against plain loops in double: AdamW, clipping, decay, accumulation.
#include "optim/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/builder.h"
#include "runtime/passes/schedule.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

const Shape kMatrix = {5, 3};
const std::vector<std::pair<std::string, Shape>> kParameters = {
    {"matrix", {5, 3}}, {"norm", {7}}, {"table", {4, 2}}};

// An update whose gradients and sums over tokens are inputs.
Graph update_graph(const OptimizerSettings& settings, bool accumulated) {
  Graph graph;
  MicroBatchResult result;
  Builder b(graph);
  for (const auto& [name, shape] : kParameters) {
    const Val parameter = b.parameter(name, shape, {});
    result.gradients.emplace_back(parameter, b.input("d" + name, shape, DType::f32));
  }
  result.loss_sum = b.input("loss_sum", {}, DType::f32);
  result.num_valid = b.input("valid", {}, DType::f32);
  append_update(graph, result, accumulated, settings);
  verify(graph, "optimizer");
  return reorder(graph);
}

// One parameter, the way the paper writes it (Loshchilov & Hutter, algorithm 2).
struct PlainAdamW {
  OptimizerSettings settings;
  std::vector<double> x, m, v;
  bool decays;

  void step(const std::vector<double>& gradient, double rate, int t) {
    for (size_t i = 0; i < x.size(); ++i) {
      m[i] = settings.beta1 * m[i] + (1 - settings.beta1) * gradient[i];
      v[i] = settings.beta2 * v[i] + (1 - settings.beta2) * gradient[i] * gradient[i];
      const double m_hat = m[i] / (1 - std::pow(double{settings.beta1}, t));
      const double v_hat = v[i] / (1 - std::pow(double{settings.beta2}, t));
      const double decay = decays ? double{settings.weight_decay} : 0.0;
      x[i] -= rate * (m_hat / (std::sqrt(v_hat) + settings.eps) + decay * x[i]);
    }
  }
};

std::vector<double> to_doubles(const HostTensor& tensor) {
  std::vector<double> values;
  for (int64_t i = 0; i < tensor.size(); ++i) values.push_back(tensor.at(i));
  return values;
}

HostTensors step_inputs(int step, double rate) {
  HostTensors inputs = {{"loss_sum", scalar_tensor(12.0f)},
                        {"valid", scalar_tensor(8.0f)},
                        {"learning_rate", scalar_tensor(static_cast<float>(rate))},
                        {"step", scalar_tensor(static_cast<float>(step))}};
  for (const auto& [name, shape] : kParameters) {
    inputs["d" + name] = normal_tensor(shape, static_cast<uint64_t>(100 * step) + name.size());
  }
  return inputs;
}

class AdamWTest : public testing::TestWithParam<float> {};  // max_grad_norm

TEST_P(AdamWTest, EqualsAPlainLoop) {
  const OptimizerSettings settings{.weight_decay = 0.2f, .max_grad_norm = GetParam()};
  std::map<std::string, PlainAdamW> plain;
  HostTensors start;
  for (const auto& [name, shape] : kParameters) {
    start[name] = normal_tensor(shape, name.size());
    const size_t size = static_cast<size_t>(num_elements(shape));
    plain[name] = {settings, to_doubles(start[name]), std::vector<double>(size, 0.0),
                   std::vector<double>(size, 0.0), shape.size() == 2};
  }
  constexpr int kSteps = 4;
  const auto rate = [](int step) { return 0.01 * step; };
  const Graph graph = update_graph(settings, false);
  HostTensors results = run_on_ranks({{"update", graph}}, Mesh{}, {}, [&](ProgramRunner& runner) {
    for (const auto& [name, tensor] : start) runner.set(name, tensor);
    for (int step = 1; step <= kSteps; ++step) {
      runner.run("update", step_inputs(step, rate(step)));
      runner.record_output("norm." + std::to_string(step), "update", "grad_norm");
    }
    runner.record_output("loss", "update", "loss");
    for (const auto& [name, shape] : kParameters) {
      for (const char* prefix : {"", "optimizer.m.", "optimizer.v."}) {
        runner.record_persistent(prefix + name);
      }
    }
  });

  for (int step = 1; step <= kSteps; ++step) {
    const HostTensors inputs = step_inputs(step, rate(step));
    double squares = 0;
    for (const auto& [name, shape] : kParameters) {
      for (const double g : to_doubles(inputs.at("d" + name))) squares += g / 8 * g / 8;
    }
    const double norm = std::sqrt(squares);
    EXPECT_NEAR(results.at("norm." + std::to_string(step)).at(0), norm, 1e-6 * norm);
    const bool clips = GetParam() > 0 && norm > GetParam();
    for (auto& [name, adam] : plain) {
      std::vector<double> gradient = to_doubles(inputs.at("d" + name));
      for (double& g : gradient) g = g / 8 * (clips ? GetParam() / norm : 1.0);
      adam.step(gradient, rate(step), step);
    }
  }
  EXPECT_FLOAT_EQ(results.at("loss").at(0), 1.5f);
  const auto expect_close = [&](const std::string& name, const std::vector<double>& expected) {
    for (size_t i = 0; i < expected.size(); ++i) {
      const double actual = results.at(name).at(static_cast<int64_t>(i));
      EXPECT_NEAR(actual, expected[i], 1e-6 + 1e-5 * std::abs(expected[i])) << name << " " << i;
    }
  };
  for (const auto& [name, adam] : plain) {
    expect_close(name, adam.x);
    expect_close("optimizer.m." + name, adam.m);
    expect_close("optimizer.v." + name, adam.v);
  }
}

// Never, not at this size of gradients, at every step.
INSTANTIATE_TEST_SUITE_P(Clipping, AdamWTest, testing::Values(0.0f, 1e3f, 0.1f));

TEST(Optimizer, OnlyMatricesDecay) {
  const Graph graph = update_graph({.weight_decay = 0.3f}, false);
  std::map<std::string, float> decay;
  for (const Node& node : graph.nodes) {
    if (const auto* op = std::get_if<AdamW>(&node.op)) {
      decay[graph.value(node.inputs[0]).name] = op->weight_decay;
    }
  }
  EXPECT_EQ(decay, (std::map<std::string, float>{{"matrix", 0.3f}, {"norm", 0}, {"table", 0.3f}}));
}

TEST(Optimizer, StateIsPlacedLikeItsParameterOrSharded) {
  for (const int zero : {0, 1, 2}) {
    const Graph graph = update_graph({.zero_stage = zero}, true);
    const auto placement = [&](const char* name) {
      return graph.value(graph.find(name)).placement[Axis::dp];
    };
    EXPECT_EQ(placement("optimizer.m.matrix"), zero >= 1 ? shard(0) : kReplicate);
    EXPECT_EQ(placement("optimizer.v.matrix"), zero >= 1 ? shard(0) : kReplicate);
    EXPECT_EQ(placement("accumulator.matrix"), zero >= 2 ? shard(0) : kPartial);
    EXPECT_EQ(placement("matrix"), kReplicate);
  }
}

// keep = 0 begins a step: whatever the sums hold is forgotten, also NaN.
TEST(Optimizer, KeepZeroForgetsEvenNaN) {
  Graph graph;
  Builder b(graph);
  const Val w = b.parameter("w", kMatrix, {});
  MicroBatchResult result{{{w, b.input("dw", kMatrix, DType::f32)}}, Val::none, Val::none};
  result.loss_sum = b.input("loss_sum", {}, DType::f32);
  result.num_valid = b.input("valid", {}, DType::f32);
  append_accumulate(graph, result, {});
  const HostTensor gradient = normal_tensor(kMatrix, 1);
  HostTensor nan = zeros(kMatrix);
  for (int64_t i = 0; i < nan.size(); ++i) nan.set(i, std::nanf(""));
  HostTensors inputs = {{"dw", gradient},
                        {"loss_sum", scalar_tensor(2.0f)},
                        {"valid", scalar_tensor(3.0f)},
                        {"keep", scalar_tensor(0.0f)}};
  const HostTensors sums =
      run_on_ranks({{"accumulate", reorder(graph)}}, Mesh{}, {}, [&](ProgramRunner& runner) {
        runner.set("accumulator.w", nan);
        runner.set("accumulator.loss_sum", scalar_tensor(std::nanf("")));
        runner.run("accumulate", inputs);
        inputs["keep"] = scalar_tensor(1.0f);
        runner.run("accumulate", inputs);
        runner.record_persistent("accumulator.w");
        runner.record_persistent("accumulator.loss_sum");
      });
  for (int64_t i = 0; i < gradient.size(); ++i) {
    EXPECT_EQ(sums.at("accumulator.w").at(i), gradient.at(i) + gradient.at(i));
  }
  EXPECT_EQ(sums.at("accumulator.loss_sum").at(0), 4.0f);
}

TEST(Optimizer, NothingValidChangesNothing) {
  const Graph graph = update_graph({.weight_decay = 0}, false);
  const HostTensor start = normal_tensor({5, 3}, 1);
  const HostTensors results =
      run_on_ranks({{"update", graph}}, Mesh{}, {}, [&](ProgramRunner& runner) {
        HostTensors inputs = step_inputs(1, 0.1);
        inputs["valid"] = scalar_tensor(0.0f);
        runner.set("matrix", start);
        runner.run("update", inputs);
        runner.record_persistent("matrix");
        runner.record_output("loss", "update", "loss");
      });
  EXPECT_EQ(results.at("matrix"), start);
  EXPECT_EQ(results.at("loss").at(0), 0.0f);
}

}  // namespace
}  // namespace caravan
