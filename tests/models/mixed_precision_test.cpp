// Training graphs whose activations are bf16, on any mesh: what is bf16 and what stays f32, and
// that such a graph computes what the f32 graph does, as exactly as bf16 can tell. The
// specification of the ops computes in bf16, the CPU's kernels in f32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/training_run.h"

namespace caravan {
namespace {

struct MixedCase {
  std::string label;
  Mesh mesh = {};
  int zero_stage = 0;
  bool experts = false;
  bool few_slots = false;  // half of what is routed: experts take several passes
  bool tied = false;
  bool sequence_parallel = false;
  bool recompute = true;
  int64_t accumulation_steps = 1;
};
void PrintTo(const MixedCase& c, std::ostream* out) { *out << c.label; }

TrainingRun run_of(const MixedCase& c, DType dtype) {
  TrainingRun run = c.experts ? tiny_llama4_run() : tiny_run();
  if (c.experts) {
    run.model.moe_layers = std::vector<int64_t>{1};
    run.model.num_local_experts = 4;
    run.options.slots = {.sequence_len = 8, .per_sequence = c.few_slots ? 4 : 8};
  }
  run.model.tie_word_embeddings = c.tied;
  run.num_sequences = 12;
  run.mesh = c.mesh;
  run.dtype = dtype;
  run.optimizer.zero_stage = c.zero_stage;
  run.options.sequence_parallel = c.sequence_parallel;
  run.recompute = c.recompute;
  run.accumulation_steps = c.accumulation_steps;
  run.runner.reference = dtype == DType::bf16;
  return run;
}

class MixedPrecision : public testing::TestWithParam<MixedCase> {};

const Value& first_input(const Graph& graph, const Node& node) {
  return graph.value(node.inputs[0]);
}

bool is_forward(const Graph& graph, const Node& node) {
  return graph.value(node.outputs[0]).kind == ValueKind::activation;
}

// The graphs were verified after every pass where they were made.
TEST_P(MixedPrecision, KeepsInF32WhatOutlivesAStep) {
  const MixedCase& c = GetParam();
  for (const auto& [name, graph] : training_graphs(run_of(c, DType::bf16))) {
    for (const Value& value : graph.values) {
      if (is_persistent(value.kind)) {
        EXPECT_EQ(value.dtype, DType::f32) << value.name;
      }
    }
    for (const auto& [target, source] : graph.updates) {
      EXPECT_EQ(graph.value(source).dtype, DType::f32) << graph.value(target).name;
    }
    for (const auto& [output, id] : graph.outputs) {
      EXPECT_EQ(graph.value(id).dtype, DType::f32) << output;
    }
  }
}

TEST_P(MixedPrecision, MultipliesInBf16) {
  int64_t products = 0;
  const Graph graph = training_graphs(run_of(GetParam(), DType::bf16))[0].graph;
  for (const Node& node : graph.nodes) {
    const std::string_view op = name(node.op);
    const bool multiplies = op == "matmul" || op == "grouped_matmul" || family(node.op) == "loss";
    if (!multiplies || op == "merge_cross_entropy") continue;
    ++products;
    for (const size_t factor : {0, 1}) {
      EXPECT_EQ(graph.value(node.inputs[factor]).dtype, DType::bf16) << op << " " << node.scope;
    }
    if (is_forward(graph, node) && op == "matmul") {
      const bool is_router = node.scope.find("router") != std::string::npos;
      EXPECT_EQ(graph.value(node.outputs[0]).dtype, is_router ? DType::f32 : DType::bf16);
    }
  }
  EXPECT_GT(products, 40);  // 15 in the forward pass, twice as many in the backward pass
}

// What lies between forward and backward, and what is sent there, has two bytes an element.
TEST_P(MixedPrecision, SendsWeightsAsBf16) {
  const Graph graph = training_graphs(run_of(GetParam(), DType::bf16))[0].graph;
  bool gathers_weights = false;
  for (const Node& node : graph.nodes) {
    if (!std::holds_alternative<AllGather>(node.op)) continue;
    const auto maker = std::ranges::find_if(
        graph.nodes, [&](const Node& other) { return other.outputs[0] == node.inputs[0]; });
    const bool is_weight = maker != graph.nodes.end() && std::holds_alternative<Cast>(maker->op);
    gathers_weights |= is_weight;
    // Only the embedding reads a weight as it is.
    if (first_input(graph, node).kind == ValueKind::parameter) {
      EXPECT_EQ(first_input(graph, node).name, "model.embed_tokens.weight");
    }
  }
  EXPECT_EQ(gathers_weights, GetParam().zero_stage == 3);
}

TEST_P(MixedPrecision, MakesCastsAgainInsteadOfKeepingThem) {
  const Graph graph = training_graphs(run_of(GetParam(), DType::bf16))[0].graph;
  const auto is_cast_of_weight = [&](const Node& node) {
    return std::holds_alternative<Cast>(node.op) &&
           first_input(graph, node).kind == ValueKind::parameter;
  };
  const auto count = [&](bool again) {
    return std::ranges::count_if(graph.nodes, [&](const Node& node) {
      return is_cast_of_weight(node) && node.scope.ends_with(".recompute") == again;
    });
  };
  const int64_t casts = count(false);
  EXPECT_GT(casts, 10);
  EXPECT_EQ(count(true), GetParam().recompute ? casts - 1 : 0);  // not that of the head
}

// |a - b| / |b|, of vectors.
double distance(const HostTensor& a, const HostTensor& b) {
  double difference = 0, length = 0;
  for (int64_t i = 0; i < b.size(); ++i) {
    difference += std::pow(double{a.at(i)} - b.at(i), 2);
    length += std::pow(double{b.at(i)}, 2);
  }
  return length == 0 ? difference : std::sqrt(difference / length);
}

// The first moments after one step are the gradients, but for a factor.
TEST_P(MixedPrecision, ComputesWhatF32Does) {
  const MixedCase& c = GetParam();
  const TrainingRun exact = run_of(c, DType::f32), mixed = run_of(c, DType::bf16);
  const std::vector<TokenBatch> batches = {random_batch(exact, 1)};
  const TrainingResult expected = train(exact, batches), actual = train(mixed, batches);
  EXPECT_NEAR(actual.losses[0], expected.losses[0], 0.002 * expected.losses[0]);
  EXPECT_NE(actual.losses[0], expected.losses[0]);
  EXPECT_NEAR(actual.grad_norms[0], expected.grad_norms[0], 0.02 * expected.grad_norms[0]);
  for (const auto& [name, tensor] : expected.persistent) {
    if (!name.starts_with("optimizer.m.")) continue;
    EXPECT_LT(distance(actual.persistent.at(name), tensor), 0.06) << name;
  }
}

const std::vector<MixedCase> kCases = {
    {.label = "llama"},
    {.label = "llama_keeps_casts", .recompute = false},
    {.label = "llama_dp2_zero1_accumulates",
     .mesh = {{2, 1, 1}},
     .zero_stage = 1,
     .accumulation_steps = 2},
    {.label = "llama_dp2_zero2_accumulates",
     .mesh = {{2, 1, 1}},
     .zero_stage = 2,
     .accumulation_steps = 2},
    {.label = "llama_dp2_zero3", .mesh = {{2, 1, 1}}, .zero_stage = 3},
    {.label = "llama_dp2_zero3_keeps_casts",
     .mesh = {{2, 1, 1}},
     .zero_stage = 3,
     .recompute = false},
    {.label = "llama_tp2_sequence_parallel", .mesh = {{1, 1, 2}}, .sequence_parallel = true},
    {.label = "llama_dp3_zero3", .mesh = {{3, 1, 1}}, .zero_stage = 3},  // uneven shards
    {.label = "llama_tied_dp2_zero3", .mesh = {{2, 1, 1}}, .zero_stage = 3, .tied = true},
    {.label = "llama4", .experts = true},
    {.label = "llama4_further_passes", .experts = true, .few_slots = true},
    {.label = "llama4_ep2", .mesh = {{1, 2, 1}}, .experts = true},
    {.label = "llama4_dp2_tp2_zero3",
     .mesh = {{2, 1, 2}},
     .zero_stage = 3,
     .experts = true,
     .sequence_parallel = true},
};

INSTANTIATE_TEST_SUITE_P(All, MixedPrecision, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.label; });

}  // namespace
}  // namespace caravan
