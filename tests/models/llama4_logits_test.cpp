// Logits of small Llama 4 models against those of Hugging Face's transformers. What the golden file
// holds and how to make it again: tests/golden/make_llama4_logits.py.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "models/model.h"
#include "parallel/expand_experts.h"
#include "parallel/parallelize.h"
#include "runtime/passes/schedule.h"
#include "runtime/rng.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

using Json = nlohmann::json;

const Json& golden() {
  static const Json content = Json::parse(
      std::ifstream(std::string(CARAVAN_SOURCE_DIR) + "/tests/golden/llama4_logits.json"));
  return content;
}

void read_attention(const Json& json, ModelConfig& model) {
  model.no_rope_layers = json.at("no_rope_layers").get<std::vector<int64_t>>();
  model.no_rope_layer_interval = json.at("no_rope_layer_interval");
  const Json& chunk = json.at("attention_chunk_size");
  model.attention_chunk_size = chunk.is_null() ? 0 : chunk.get<int64_t>();
  for (const Json& type : json.at("layer_types")) {
    model.layer_types.push_back(type == "chunked_attention" ? LayerType::chunked_attention
                                                            : LayerType::full_attention);
  }
  model.use_qk_norm = json.at("use_qk_norm");
  model.attn_temperature_tuning = json.at("attn_temperature_tuning");
  model.floor_scale = json.at("floor_scale");
  model.attn_scale = json.at("attn_scale");
  model.rope_theta = json.at("rope_theta");
  if (const Json& scaling = json.at("rope_scaling"); !scaling.is_null()) {
    model.rope_scaling =
        RopeScaling{scaling.at("factor"), scaling.at("low_freq_factor"),
                    scaling.at("high_freq_factor"), scaling.at("original_max_position_embeddings")};
  }
}

ModelConfig model_of(const Json& json) {
  ModelConfig model = default_config(ModelFamily::llama4_text);
  model.vocab_size = json.at("vocab_size");
  model.hidden_size = json.at("hidden_size");
  model.intermediate_size = json.at("intermediate_size");
  model.intermediate_size_mlp = json.at("intermediate_size_mlp");
  model.num_hidden_layers = json.at("num_hidden_layers");
  model.num_attention_heads = json.at("num_attention_heads");
  model.num_key_value_heads = json.at("num_key_value_heads");
  model.head_dim = json.at("head_dim");
  model.initializer_range = json.at("initializer_range");
  model.rms_norm_eps = json.at("rms_norm_eps");
  model.tie_word_embeddings = json.at("tie_word_embeddings");
  model.attention_bias = json.at("attention_bias");
  model.num_local_experts = json.at("num_local_experts");
  model.num_experts_per_tok = json.at("num_experts_per_tok");
  model.interleave_moe_layer_step = json.at("interleave_moe_layer_step");
  if (const Json& layers = json.at("moe_layers"); !layers.is_null()) {
    model.moe_layers = layers.get<std::vector<int64_t>>();
  }
  read_attention(json, model);
  return with_derived_sizes(model);
}

// Columns [begin, begin + count) of the golden tokens, of all sequences.
HostTensor tokens(size_t begin, size_t count) {
  std::vector<int32_t> all;
  for (const Json& sequence : golden().at("tokens")) {
    const auto words = sequence.get<std::vector<int32_t>>();
    all.insert(all.end(), words.begin() + std::ptrdiff_t(begin),
               words.begin() + std::ptrdiff_t(begin + count));
  }
  return int_tensor(all);
}

HostTensors batch() {
  const size_t length = golden().at("sequence_len");
  std::vector<int32_t> positions;
  for (size_t i = 0; i < length * golden().at("tokens").size(); ++i) {
    positions.push_back(static_cast<int32_t>(i % length));
  }
  return {{"input_ids", tokens(0, length)},
          {"targets", tokens(1, length)},
          {"positions", int_tensor(positions)},
          {"document_start", int_tensor(std::vector<int32_t>(positions.size(), 0))}};
}

// As make_llama4_logits.py says.
HostTensor weight(const Value& value, double initializer_range) {
  const RandomStream stream(1, RandomPurpose::init, stable_hash(value.name));
  const double offset = value.name.find("norm") == std::string::npos ? 0 : 1;
  HostTensor tensor = zeros(value.shape);
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const double random = stream.normal(static_cast<uint64_t>(i));
    tensor.set(i, static_cast<float>(offset + initializer_range * random));
  }
  return tensor;
}

// The model, with the logits that its loss is made of as another output.
Graph logits_graph(const ModelConfig& model, ModelOptions options) {
  const int64_t length = golden().at("sequence_len");
  options.slots = {length, length * model.num_experts_per_tok};
  Graph graph;
  Builder b(graph);
  const auto inputs = declare_batch(b, std::ssize(golden().at("tokens")), length);
  b.output("loss", model_loss(b, model, inputs, options).loss_sum);
  const Node loss = graph.nodes.back();
  check(std::holds_alternative<LinearCrossEntropy>(loss.op), "the loss is not the last op");
  b.output("logits", b.linear(loss.inputs[0], loss.inputs[1]));
  return reorder(expand_experts(parallelize(graph, Mesh{}), Mesh{}));
}

struct Result {
  HostTensor logits;  // (T, V)
  float loss;         // sum of -log p(target)
};

Result compute(const ModelConfig& model, const ModelOptions& options) {
  const Graph graph = logits_graph(model, options);
  HostTensors made = run_on_ranks({{"logits", graph}}, Mesh{}, {}, [&](ProgramRunner& runner) {
    for (const Value& value : graph.values) {
      if (value.kind != ValueKind::parameter) continue;
      runner.set(value.name, weight(value, model.initializer_range));
    }
    runner.run("logits", batch());
    for (const char* name : {"logits", "loss"}) runner.record_output(name, "logits", name);
  });
  return {made.at("logits"), made.at("loss").at(0)};
}

class Llama4Logits : public testing::TestWithParam<const char*> {};

TEST_P(Llama4Logits, AreThoseOfTransformers) {
  const Json& variant = golden().at("variants").at(GetParam());
  const Result result = compute(model_of(variant.at("model")), {.training = false});
  const auto columns = golden().at("columns").get<std::vector<int64_t>>();
  const int64_t vocab = result.logits.shape[1];
  const auto expected = variant.at("logits").get<std::vector<double>>();
  ASSERT_EQ(expected.size(), static_cast<size_t>(result.logits.shape[0]) * columns.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto token = static_cast<int64_t>(i / columns.size());
    const float logit = result.logits.at(token * vocab + columns[i % columns.size()]);
    EXPECT_NEAR(logit, expected[i], 1e-4) << "token " << token;
  }
  double loss = 0;
  for (const double value : variant.at("target_log_probabilities")) loss -= value;
  EXPECT_NEAR(result.loss, loss, 1e-4 * loss);
}

constexpr auto kVariants = {"dense",
                            "dense_long",
                            "dense_plain_attention",
                            "dense_scaled_rope",
                            "dense_listed_layers",
                            "top1",
                            "top2_between_dense",
                            "top3_listed_layers"};

INSTANTIATE_TEST_SUITE_P(All, Llama4Logits, testing::ValuesIn(kVariants),
                         [](const auto& info) { return info.param; });

TEST(Llama4Logits, HasEveryGoldenVariant) {
  EXPECT_EQ(golden().at("variants").size(), kVariants.size());
}

// Balancing is for training: before its bias has learned anything, it changes no bit.
TEST(Llama4Balance, ChangesNoLogits) {
  const ModelConfig model = model_of(golden().at("variants").at("top2_between_dense").at("model"));
  const HostTensor plain = compute(model, {.training = false}).logits;
  const std::vector<ModelOptions> options = {
      {.router_bias = true},
      {.router_bias = false, .aux_loss_coef = 0.1f, .z_loss_coef = 0.1f},
      {.training = false, .router_bias = true, .aux_loss_coef = 0.1f, .z_loss_coef = 0.1f}};
  for (const ModelOptions& option : options) EXPECT_EQ(compute(model, option).logits, plain);
}

}  // namespace
}  // namespace caravan
