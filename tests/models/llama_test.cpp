// Names, shapes and number of the parameters, and what the inputs mean. That the maths is PyTorch's
// is tested in tests/e2e/golden_losses_test.cpp.
#include "models/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/support/training_run.h"

namespace caravan {
namespace {

using Shapes = std::map<std::string, Shape>;

Shapes parameters_of(const ModelConfig& config) {
  Graph graph;
  Builder b(graph);
  model_loss(b, with_derived_sizes(config), declare_batch(b, 2, 8), {});
  Shapes shapes;
  for (const Value& value : graph.values) {
    if (value.kind == ValueKind::parameter) shapes[value.name] = value.shape;
  }
  return shapes;
}

ModelConfig config_of(int64_t heads, int64_t kv_heads) {
  ModelConfig config;
  config.vocab_size = 96;
  config.hidden_size = 48;
  config.intermediate_size = 80;
  config.num_hidden_layers = 2;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = 10;  // not hidden_size / heads
  return config;
}

// The table of Hugging Face's LlamaForCausalLM.
Shapes expected_shapes(const ModelConfig& c) {
  const int64_t d = c.hidden_size, i = c.intermediate_size;
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  Shapes shapes = {{"model.embed_tokens.weight", {c.vocab_size, d}}, {"model.norm.weight", {d}}};
  if (!c.tie_word_embeddings) shapes["lm_head.weight"] = {c.vocab_size, d};
  for (int64_t n = 0; n < c.num_hidden_layers; ++n) {
    const std::string layer = "model.layers." + std::to_string(n) + ".";
    shapes[layer + "input_layernorm.weight"] = {d};
    shapes[layer + "post_attention_layernorm.weight"] = {d};
    const auto project = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
      shapes[layer + name + ".weight"] = {out, in};
      if (bias) shapes[layer + name + ".bias"] = {out};
    };
    project("self_attn.q_proj", q, d, c.attention_bias);
    project("self_attn.k_proj", kv, d, c.attention_bias);
    project("self_attn.v_proj", kv, d, c.attention_bias);
    project("self_attn.o_proj", d, q, c.attention_bias);
    project("mlp.gate_proj", i, d, c.mlp_bias);
    project("mlp.up_proj", i, d, c.mlp_bias);
    project("mlp.down_proj", d, i, c.mlp_bias);
  }
  return shapes;
}

TEST(Llama, HasHuggingFacesParameters) {
  for (const int64_t kv_heads : {6, 3, 1}) {  // MHA, GQA, MQA
    for (const bool tied : {false, true}) {
      for (const bool bias : {false, true}) {
        ModelConfig config = config_of(6, kv_heads);
        config.tie_word_embeddings = tied;
        config.attention_bias = bias;
        config.mlp_bias = !bias;
        EXPECT_EQ(parameters_of(config), expected_shapes(config));
      }
    }
  }
}

int64_t count_parameters(const ModelConfig& config) {
  int64_t count = 0;
  for (const auto& [name, shape] : parameters_of(config)) count += num_elements(shape);
  return count;
}

// The released sizes: Llama 3 8B and the tied Llama 3.2 1B.
TEST(Llama, CountsTheReleasedModels) {
  ModelConfig large;
  large.vocab_size = 128256;
  large.hidden_size = 4096;
  large.intermediate_size = 14336;
  large.num_hidden_layers = 32;
  large.num_attention_heads = 32;
  large.num_key_value_heads = 8;
  EXPECT_EQ(count_parameters(large), 8'030'261'248);
  ModelConfig small = large;
  small.hidden_size = 2048;
  small.intermediate_size = 8192;
  small.num_hidden_layers = 16;
  small.tie_word_embeddings = true;
  EXPECT_EQ(count_parameters(small), 1'235'814'400);
}

TEST(Llama, SizesThatAreNotGivenAreDerived) {
  ModelConfig config = config_of(6, 0);
  config.head_dim = 0;
  const Shapes shapes = parameters_of(config);
  EXPECT_EQ(shapes.at("model.layers.1.self_attn.k_proj.weight"), (Shape{48, 48}));
}

TEST(Llama, InitializersAreHuggingFaces) {
  ModelConfig config = config_of(6, 3);
  config.attention_bias = true;
  config.initializer_range = 0.05;
  Graph graph;
  Builder b(graph);
  model_loss(b, config, declare_batch(b, 2, 8), {});
  for (const Value& value : graph.values) {
    if (value.kind != ValueKind::parameter) continue;
    const bool is_bias = value.name.ends_with(".bias");
    const bool is_norm = value.name.find("norm") != std::string::npos;
    const auto kind = is_bias   ? Initializer::Kind::zeros
                      : is_norm ? Initializer::Kind::ones
                                : Initializer::Kind::normal;
    EXPECT_EQ(value.init.kind, kind) << value.name;
    EXPECT_EQ(value.init.std, kind == Initializer::Kind::normal ? 0.05f : 0.0f) << value.name;
  }
}

TEST(Llama, ScopesNameLayerAndPart) {
  Graph graph;
  Builder b(graph);
  model_loss(b, with_derived_sizes(config_of(6, 3)), declare_batch(b, 2, 8), {});
  std::map<std::string, int> layer_of;
  for (const Node& node : graph.nodes) layer_of[node.scope] = node.layer;
  EXPECT_EQ(layer_of.at("layers.1.attention.q_proj"), 1);
  EXPECT_EQ(layer_of.at("layers.0.mlp.down_proj"), 0);
}

// What a run computes for a batch before anything is learned.
float loss_of(const TrainingRun& run, const TokenBatch& batch) {
  return train(run, {batch}).losses[0];
}

TokenBatch single_sequence(const TrainingRun& run) { return random_batch(run, 4); }

TrainingRun one_sequence_run() {
  TrainingRun run = tiny_run();
  run.num_sequences = 1;
  return run;
}

// With almost no weights all words are equally likely.
TEST(Llama, BeginsAtTheLogarithmOfTheVocabulary) {
  TrainingRun run = one_sequence_run();
  run.model.initializer_range = 1e-4;
  EXPECT_NEAR(loss_of(run, single_sequence(run)), std::log(50.0), 1e-3);
}

// Causality: a token changes no loss before it.
TEST(Llama, SeesOnlyThePast) {
  const TrainingRun run = one_sequence_run();
  TokenBatch batch = single_sequence(run);
  for (size_t i = 4; i < batch.targets.size(); ++i) batch.targets[i] = -1;
  const float before = loss_of(run, batch);
  batch.input_ids[4] = (batch.input_ids[4] + 1) % 50;
  EXPECT_EQ(loss_of(run, batch), before);
  batch.input_ids[3] = (batch.input_ids[3] + 1) % 50;
  EXPECT_NE(loss_of(run, batch), before);
}

// Packed documents: those behind a border do not see those before it.
TEST(Llama, DocumentsDoNotSeeEachOther) {
  const TrainingRun run = one_sequence_run();
  TokenBatch batch = single_sequence(run);
  for (size_t i = 0; i < batch.targets.size(); ++i) {
    if (i < 5) batch.targets[i] = -1;
    if (i >= 5) batch.document_start[i] = 5;
  }
  const float before = loss_of(run, batch);
  batch.input_ids[4] = (batch.input_ids[4] + 1) % 50;
  EXPECT_EQ(loss_of(run, batch), before);
  std::ranges::fill(batch.document_start, 0);
  EXPECT_NE(loss_of(run, batch), before);
}

// Attention sees distances only: positions may all begin later.
TEST(Llama, PositionsAreRelative) {
  const TrainingRun run = one_sequence_run();
  TokenBatch batch = single_sequence(run);
  const float before = loss_of(run, batch);
  for (int32_t& position : batch.positions) position += 3;
  EXPECT_NEAR(loss_of(run, batch), before, 1e-5);
  for (int32_t& position : batch.positions) position *= 2;
  EXPECT_GT(std::abs(loss_of(run, batch) - before), 1e-4);
}

}  // namespace
}  // namespace caravan
