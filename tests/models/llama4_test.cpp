// What Llama 4 builds: parameters, the ops of each layer, what routers report. That its logits are
// right is tested in llama4_logits_test.cpp.
#include "models/llama4.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/support/training_run.h"

namespace caravan {
namespace {

using Shapes = std::map<std::string, Shape>;

struct Built {
  Graph graph;
  LossSums sums;
};

Built build(const ModelConfig& config, ModelOptions options = {}) {
  Built built;
  Builder b(built.graph);
  options.slots = {.sequence_len = 8, .per_sequence = 8};
  built.sums = model_loss(b, with_derived_sizes(config), declare_batch(b, 2, 8), options);
  verify(built.graph, "build");
  return built;
}

Shapes parameters_of(const ModelConfig& config) {
  Shapes shapes;
  for (const Value& value : build(config).graph.values) {
    if (value.kind == ValueKind::parameter) shapes[value.name] = value.shape;
  }
  return shapes;
}

// Layers 1 and 3 of 4 have experts, layer 3 has no rope.
ModelConfig small() {
  ModelConfig config = default_config(ModelFamily::llama4_text);
  config.vocab_size = 96;
  config.hidden_size = 48;
  config.intermediate_size = 20;
  config.intermediate_size_mlp = 80;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 3;
  config.head_dim = 10;
  config.num_local_experts = 4;
  config.interleave_moe_layer_step = 2;
  return config;
}

void expect_mixture(const Shapes& shapes, const std::string& prefix) {
  EXPECT_EQ(shapes.at(prefix + "router.weight"), (Shape{4, 48}));
  EXPECT_EQ(shapes.at(prefix + "experts.gate_proj"), (Shape{4, 48, 20}));
  EXPECT_EQ(shapes.at(prefix + "experts.up_proj"), (Shape{4, 48, 20}));
  EXPECT_EQ(shapes.at(prefix + "experts.down_proj"), (Shape{4, 20, 48}));
  EXPECT_EQ(shapes.at(prefix + "shared_expert.gate_proj.weight"), (Shape{20, 48}));
  EXPECT_EQ(shapes.at(prefix + "shared_expert.up_proj.weight"), (Shape{20, 48}));
  EXPECT_EQ(shapes.at(prefix + "shared_expert.down_proj.weight"), (Shape{48, 20}));
}

TEST(Llama4, HasHuggingFacesParameters) {
  const Shapes shapes = parameters_of(small());
  expect_mixture(shapes, "model.layers.1.feed_forward.");
  expect_mixture(shapes, "model.layers.3.feed_forward.");
  EXPECT_EQ(shapes.at("model.layers.2.feed_forward.gate_proj.weight"), (Shape{80, 48}));
  EXPECT_EQ(shapes.at("model.layers.2.feed_forward.up_proj.weight"), (Shape{80, 48}));
  EXPECT_EQ(shapes.at("model.layers.2.feed_forward.down_proj.weight"), (Shape{48, 80}));
  EXPECT_EQ(shapes.at("model.layers.3.self_attn.k_proj.weight"), (Shape{30, 48}));
  EXPECT_EQ(shapes.at("model.layers.3.self_attn.o_proj.weight"), (Shape{48, 60}));
  EXPECT_EQ(shapes.at("lm_head.weight"), (Shape{96, 48}));
  // Embedding, head, last norm; by layer 2 norms and 4 projections, then 3 or 7.
  EXPECT_EQ(shapes.size(), 3u + 4 * 6 + 2 * 3 + 2 * 7);
}

TEST(Llama4, AnyLlamaMayHaveExperts) {
  ModelConfig config = small();
  config.family = ModelFamily::llama;
  const Shapes shapes = parameters_of(config);
  expect_mixture(shapes, "model.layers.1.mlp.");
  EXPECT_EQ(shapes.at("model.layers.2.mlp.gate_proj.weight"), (Shape{80, 48}));
  EXPECT_EQ(shapes.size(), 3u + 4 * 6 + 2 * 3 + 2 * 7);
}

double billions(const ModelConfig& config) {
  double count = 0;
  for (const auto& [name, shape] : parameters_of(config)) {
    count += static_cast<double>(num_elements(shape));
  }
  return count / 1e9;
}

// The released sizes, text only: Scout and Maverick.
TEST(Llama4, CountsTheReleasedModels) {
  ModelConfig scout = default_config(ModelFamily::llama4_text);
  scout.vocab_size = 202048;
  scout.hidden_size = 5120;
  scout.intermediate_size = 8192;
  scout.intermediate_size_mlp = 16384;
  scout.num_hidden_layers = 48;
  scout.num_attention_heads = 40;
  scout.num_key_value_heads = 8;
  scout.head_dim = 128;
  EXPECT_NEAR(billions(scout), 107.77, 0.005);
  ModelConfig maverick = scout;
  maverick.num_local_experts = 128;
  maverick.interleave_moe_layer_step = 2;
  EXPECT_NEAR(billions(maverick), 400.7, 0.05);
}

int64_t count_ops(const Graph& graph, int layer, std::string_view op) {
  return std::ranges::count_if(
      graph.nodes, [&](const Node& node) { return node.layer == layer && name(node.op) == op; });
}

TEST(Llama4, LayersWithoutRopeSeeFurther) {
  const Graph graph = build(small()).graph;
  EXPECT_EQ(count_ops(graph, -1, "chunk_start"), 1);  // for all layers
  for (const int layer : {0, 1, 2}) {
    EXPECT_EQ(count_ops(graph, layer, "rope"), 2);
    EXPECT_EQ(count_ops(graph, layer, "head_norm"), 2);
    EXPECT_EQ(count_ops(graph, layer, "temperature_scale"), 0);
  }
  EXPECT_EQ(count_ops(graph, 3, "rope"), 0);
  EXPECT_EQ(count_ops(graph, 3, "head_norm"), 0);
  EXPECT_EQ(count_ops(graph, 3, "temperature_scale"), 1);
}

TEST(Llama4, PartsCanBeLeftOut) {
  ModelConfig config = small();
  config.use_qk_norm = false;
  config.attn_temperature_tuning = false;
  config.attention_chunk_size = 0;
  const Graph graph = build(config).graph;
  EXPECT_EQ(count_ops(graph, -1, "chunk_start"), 0);
  EXPECT_EQ(count_ops(graph, 0, "rope"), 2);
  EXPECT_EQ(count_ops(graph, 0, "head_norm"), 0);
  EXPECT_EQ(count_ops(graph, 3, "temperature_scale"), 0);
}

// By layer, where documents reach as far as sequences do.
std::vector<bool> whole_sequences_of(const Graph& graph) {
  std::vector<bool> whole;
  for (const Node& node : graph.nodes) {
    if (const auto* op = std::get_if<Attention>(&node.op)) whole.push_back(op->whole_sequences);
  }
  return whole;
}

TEST(Llama4, ChunksAreNoWholeSequences) {
  ModelConfig config = small();
  EXPECT_EQ(whole_sequences_of(build(config).graph), std::vector(4, false));
  const ModelOptions options{.whole_sequences = true};
  EXPECT_EQ(whole_sequences_of(build(config, options).graph),
            std::vector({false, false, false, true}));
  config.attention_chunk_size = 0;
  EXPECT_EQ(whole_sequences_of(build(config, options).graph), std::vector(4, true));
}

std::vector<Route> routes_of(const Graph& graph) {
  std::vector<Route> routes;
  for (const Node& node : graph.nodes) {
    if (const auto* route = std::get_if<Route>(&node.op)) routes.push_back(*route);
  }
  return routes;
}

TEST(Llama4Routers, ReportTheirLayer) {
  const Built built = build(small());
  ASSERT_EQ(built.sums.routers.size(), 2u);
  EXPECT_EQ(built.sums.routers[0].layer, 1);
  EXPECT_EQ(built.sums.routers[1].layer, 3);
  const Graph& graph = built.graph;
  for (const RouterSums& router : built.sums.routers) {
    const Value& bias = graph.value(router.bias);
    EXPECT_EQ(bias.kind, ValueKind::state);
    EXPECT_EQ(bias.name,
              "router_bias.model.layers." + std::to_string(router.layer) + ".feed_forward");
    EXPECT_EQ(graph.value(router.load).shape, Shape{4});
    EXPECT_EQ(graph.value(router.dropped).shape, Shape{});
    EXPECT_EQ(graph.value(router.further).shape, Shape{});
  }
}

TEST(Llama4Routers, BalanceAsTheyAreTold) {
  const Built built = build(small(), {.router_bias = false, .aux_loss_coef = 2, .z_loss_coef = 3});
  EXPECT_EQ(built.sums.routers[0].bias, Val::none);
  for (const Route& route : routes_of(built.graph)) {
    EXPECT_EQ(route.aux_loss_coef, 2);
    EXPECT_EQ(route.z_loss_coef, 3);
    EXPECT_EQ(route.sequence_len, 8);
  }
}

// What is not trained is not balanced, whatever the options are.
TEST(Llama4Routers, DoNotBalanceWithoutTraining) {
  const Built built = build(small(), {.training = false, .aux_loss_coef = 2, .z_loss_coef = 3});
  EXPECT_EQ(built.sums.routers[1].bias, Val::none);
  ASSERT_EQ(routes_of(built.graph).size(), 2u);
  for (const Route& route : routes_of(built.graph)) {
    EXPECT_EQ(route.aux_loss_coef, 0);
    EXPECT_EQ(route.z_loss_coef, 0);
  }
  for (const Value& value : built.graph.values) EXPECT_NE(value.kind, ValueKind::state);
}

// A dense model with short chunks, one sequence of 8 tokens.
TrainingRun dense_run() {
  TrainingRun run = tiny_llama4_run();
  run.num_sequences = 1;
  return run;
}

float loss_of(const TrainingRun& run, const TokenBatch& batch) {
  return train(run, {batch}).losses[0];
}

// Chunks, positions and temperature begin anew with every document, wherever it begins.
TEST(Llama4, ADocumentIsTheSameAnywhereInASequence) {
  TrainingRun run = dense_run();
  const TokenBatch whole = random_batch(run, 4);
  TokenBatch packed = whole;  // documents of 2 and 6 tokens; the second alone is counted
  for (size_t i = 0; i < 8; ++i) {
    packed.positions[i] = static_cast<int32_t>(i < 2 ? i : i - 2);
    packed.document_start[i] = i < 2 ? 0 : 2;
    packed.targets[i] = i < 2 ? -1 : 7;
  }
  TokenBatch alone = packed;  // its 6 tokens at the front
  std::ranges::rotate(alone.input_ids, alone.input_ids.begin() + 2);
  std::ranges::rotate(alone.targets, alone.targets.begin() + 2);
  for (size_t i = 0; i < 8; ++i) {
    alone.positions[i] = static_cast<int32_t>(i);
    alone.document_start[i] = 0;
  }
  EXPECT_NEAR(loss_of(run, packed), loss_of(run, alone), 1e-6);
  packed.document_start.assign(8, 0);
  EXPECT_GT(std::abs(loss_of(run, packed) - loss_of(run, alone)), 1e-4);
}

// With a layer without rope all of the past counts; without one, the chunk.
TEST(Llama4, RopeLayersSeeTheirChunkOnly) {
  TrainingRun run = dense_run();
  TokenBatch batch = random_batch(run, 4);
  for (size_t i = 0; i < 8; ++i) batch.targets[i] = i == 7 ? 5 : -1;
  const auto change = [&](size_t token) {
    TokenBatch other = batch;
    other.input_ids[token] = (other.input_ids[token] + 1) % 50;
    return loss_of(run, other) != loss_of(run, batch);
  };
  EXPECT_TRUE(change(6));  // chunks are 0-2, 3-5, 6-7
  EXPECT_TRUE(change(5));
  EXPECT_TRUE(change(0));
  run.model.no_rope_layers = {1, 1};
  EXPECT_TRUE(change(6));
  EXPECT_FALSE(change(5));
  EXPECT_FALSE(change(0));
}

// Two steps of a dense model; mixtures on every mesh are tested with the other layouts.
TEST(Llama4, LearnsTheSameOnEveryMesh) {
  TrainingRun run = dense_run();
  run.num_sequences = 4;
  const std::vector<TokenBatch> batches = {random_batch(run, 1), random_batch(run, 2)};
  const TrainingResult one = train(run, batches);
  for (const Axis axis : kAxes) {
    run.mesh = Mesh{};
    run.mesh.sizes[static_cast<size_t>(axis)] = 2;
    EXPECT_LT(relative_difference(train(run, batches), one), 2e-5) << name(axis);
  }
}

}  // namespace
}  // namespace caravan
