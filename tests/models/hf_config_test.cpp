// Reading config.json: defaults, dialects, and what is refused. Models that transformers saved are
// in hf_logits_test.cpp, writing is in hf_config_writer_test.cpp.
#include "models/hf_config.h"

#include <gtest/gtest.h>

#include "runtime/error.h"
#include "tests/models/hf_config_support.h"

namespace caravan {
namespace {

// The message of the error with which a text is refused; "" when it is read.
std::string error_of_text(const std::string& text, const std::vector<std::string>& ignored = {}) {
  try {
    read_hf_config(text, "config.json", ignored);
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), ExitCode::checkpoint) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  return "";
}

// What is refused when `key` of a good config has that value.
std::string error_with(Json json, const std::string& key, const Json& value) {
  json[key] = value;
  return error_of_text(json.dump());
}

TEST(HfConfig, HasTheDefaultsOfLlama) {
  const HfConfig config = read_hf_config(R"({"model_type":"llama"})", "config.json");
  ModelConfig expected;
  expected.vocab_size = 32000, expected.hidden_size = 4096, expected.intermediate_size = 11008;
  expected.num_hidden_layers = expected.num_attention_heads = 32;
  expected.num_key_value_heads = 32, expected.head_dim = 128;
  expected.max_position_embeddings = 2048, expected.rms_norm_eps = 1e-6;
  expected.rope_theta = 10000, expected.initializer_range = 0.02;
  EXPECT_EQ(config.model, expected);
  EXPECT_EQ(config.bos, 1);
  EXPECT_EQ(config.eos, std::vector<int64_t>{2});
  EXPECT_FALSE(config.pad.has_value());
  EXPECT_EQ(config.torch_dtype, "");
  EXPECT_EQ(config.tensor_prefix, "");
}

TEST(HfConfig, HasTheDefaultsOfLlama4) {
  const ModelConfig m = read_hf_config(R"({"model_type":"llama4_text"})", "config.json").model;
  EXPECT_EQ(m.vocab_size, 202048);
  EXPECT_EQ(m.hidden_size, 5120);
  EXPECT_EQ(m.intermediate_size, 8192);
  EXPECT_EQ(m.intermediate_size_mlp, 16384);
  EXPECT_EQ(m.num_hidden_layers, 48);
  EXPECT_EQ(m.num_attention_heads, 40);
  EXPECT_EQ(m.num_key_value_heads, 8);
  EXPECT_EQ(m.head_dim, 128);
  EXPECT_EQ(m.max_position_embeddings, 131072);
  EXPECT_EQ(m.rope_theta, 500000);
  EXPECT_EQ(m.rms_norm_eps, 1e-5);
  EXPECT_EQ(m.num_local_experts, 16);
  EXPECT_EQ(m.num_experts_per_tok, 1);
  EXPECT_EQ(m.interleave_moe_layer_step, 1);
  EXPECT_EQ(m.no_rope_layer_interval, 4);
  EXPECT_EQ(m.attention_chunk_size, 8192);
  EXPECT_TRUE(m.use_qk_norm && m.attn_temperature_tuning);
  EXPECT_EQ(m.floor_scale, 8192);
  EXPECT_EQ(m.attn_scale, 0.1);
}

// In files of Llama 4 an absent size has a default, and null means: from the other sizes.
TEST(HfConfig, NullIsAbsentButForSizesThatAreDerived) {
  Json json = small_llama4();
  json["num_key_value_heads"] = json["head_dim"] = json["attention_chunk_size"] = nullptr;
  json["rope_scaling"] = json["moe_layers"] = json["quantization_config"] = nullptr;
  json["secret_config"] = nullptr;
  json.erase("architectures");
  EXPECT_NE(error_of_text(json.dump()).find("secret_config"), std::string::npos)
      << "an unknown key is one, whatever it says";
  json.erase("secret_config");
  const HfConfig config = read(json);
  EXPECT_EQ(config.model.num_key_value_heads, 4);
  EXPECT_EQ(config.model.head_dim, 4);
  EXPECT_EQ(config.model.attention_chunk_size, 0);
  EXPECT_FALSE(config.model.moe_layers.has_value());
}

TEST(HfConfig, ReadsTokens) {
  Json json = small_llama();
  json["bos_token_id"] = nullptr, json["eos_token_id"] = {3, 5}, json["pad_token_id"] = 0;
  HfConfig config = read(json);
  EXPECT_FALSE(config.bos.has_value());
  EXPECT_EQ(config.eos, (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(config.pad, 0);
  json["eos_token_id"] = nullptr, json["pad_token_id"] = -1;
  config = read(json);
  EXPECT_TRUE(config.eos.empty());
  EXPECT_FALSE(config.pad.has_value());
  EXPECT_NE(error_with(json, "bos_token_id", -1), "");
  EXPECT_NE(error_with(json, "eos_token_id", Json::array({1, "2"})), "");
}

TEST(HfConfig, ReadsBothDialects) {
  Json old = small_llama(), now = small_llama();
  old["rope_theta"] = 500000.0, old["rope_scaling"] = llama3_scaling();
  old["torch_dtype"] = "bfloat16";
  now["rope_parameters"] = llama3_scaling();
  now["rope_parameters"]["rope_theta"] = 500000.0;
  now["dtype"] = "bfloat16";
  const HfConfig config = read(old);
  EXPECT_EQ(config, read(now));
  EXPECT_EQ(config.torch_dtype, "bfloat16");
  EXPECT_EQ(config.model.rope_theta, 500000);
  EXPECT_EQ(config.model.rope_scaling, (RopeScaling{8, 1, 4, 8192}));

  old["rope_scaling"].erase("rope_type");
  old["rope_scaling"]["type"] = "llama3";
  EXPECT_EQ(read(old), config);
  Json both = old;
  both.update(now);
  EXPECT_EQ(read(both), config);
  for (const char* key : {"rope_theta", "factor"}) {
    Json other = both;
    other["rope_parameters"][key] = 9.0;
    EXPECT_NE(error_of_text(other.dump()), "") << key;
  }
  EXPECT_NE(error_with(both, "dtype", "float16"), "");
  Json plain = small_llama();
  plain["rope_scaling"] = {{"rope_type", "default"}};
  EXPECT_EQ(read(plain), read(small_llama()));
}

TEST(HfConfig, TakesTheTextOfAMultimodalModel) {
  Json text = small_llama4();
  text.erase("architectures");
  Json json = {
      {"model_type", "llama4"},      {"architectures", {"Llama4ForConditionalGeneration"}},
      {"text_config", text},         {"vision_config", {{"model_type", "llama4_vision_model"}}},
      {"boi_token_index", 40},       {"torch_dtype", "bfloat16"},
      {"tie_word_embeddings", false}};
  HfConfig expected = read(small_llama4());
  expected.tensor_prefix = "language_model.";
  expected.torch_dtype = "bfloat16";
  EXPECT_EQ(read(json), expected);
  EXPECT_NE(error_with(json, "tie_word_embeddings", true), "");
  EXPECT_NE(error_with(json, "text_config", nullptr), "");
  EXPECT_NE(error_with(json, "hidden_size", 16), "") << "that is a key of text_config";
  EXPECT_EQ(error_with(json, "eos_token_id", 2)
                .find("config.json: key 'eos_token_id' is 2; it "
                      "must be in text_config"),
            0u);
  json["text_config"]["secret"] = 1;
  EXPECT_NE(error_of_text(json.dump()).find("'text_config.secret'"), std::string::npos);
  EXPECT_EQ(error_of_text(json.dump(), {"text_config.secret"}), "");
}

TEST(HfConfig, NamesKeysThatItDoesNotKnow) {
  Json json = small_llama();
  json["secret_config"] = {{"bits", 4}};
  EXPECT_EQ(error_of_text(json.dump()),
            "config.json: key 'secret_config' is {\"bits\":4}, which this program does not know: "
            "pass --ignore-key 'secret_config' if it does not change what the model computes");
  EXPECT_EQ(read(json, {"secret_config"}), read(small_llama()));
  for (const char* key : {"auto_map", "sliding_window", "num_local_experts", "rope_type", "x\ny"}) {
    EXPECT_NE(error_with(small_llama(), key, 1), "") << key;
  }
  // What decides about the model cannot be ignored.
  json = small_llama();
  json["quantization_config"] = {{"bits", 4}};
  EXPECT_EQ(error_of_text(json.dump(), {"quantization_config"}),
            "config.json: key 'quantization_config' is {\"bits\":4}; it must be null: quantised "
            "weights are not read; take the model without it");
  json = small_llama();
  json["hidden_act"] = "gelu";
  EXPECT_EQ(error_of_text(json.dump(), {"hidden_act"}),
            "config.json: key 'hidden_act' is \"gelu\"; it must be \"silu\": the MLPs here have no "
            "other");
}

TEST(HfConfig, NamesOptionsOfTrainingThatAreLeftOut) {
  Json json = small_llama();
  EXPECT_TRUE(training_options(json.dump(), "config.json").empty());
  json["attention_dropout"] = 0.1;
  EXPECT_EQ(training_options(json.dump(), "config.json"),
            std::vector<std::string>{"attention_dropout"});
}

TEST(HfConfig, PassesOverWhatHasNoEffect) {
  Json json = small_llama();
  json.update({{"use_cache", false},
               {"transformers_version", "4.57.3"},
               {"_name_or_path", "x"},
               {"attention_dropout", 0.1},
               {"pretraining_tp", 1},
               {"hidden_act", "silu"},
               {"is_decoder", false},
               {"top_p", 0.9},
               {"pruned_heads", Json::object()},
               {"output_router_logits", true},
               {"router_aux_loss_coef", 1e-3}});
  EXPECT_EQ(read(json), read(small_llama()));
}

// Keys and values as in the files of released models.
TEST(HfConfig, ReadsLlama31) {
  Json json = Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0,
      "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
      "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256})");
  ModelConfig expected;
  expected.vocab_size = 128256, expected.hidden_size = 4096, expected.intermediate_size = 14336;
  expected.num_hidden_layers = 32, expected.num_attention_heads = 32;
  expected.num_key_value_heads = 8, expected.head_dim = 128;
  expected.max_position_embeddings = 131072, expected.rope_theta = 500000;
  expected.rope_scaling = RopeScaling{8, 1, 4, 8192};
  const HfConfig config = read(json);
  EXPECT_EQ(config.model, expected);
  EXPECT_EQ(config.bos, 128000);
  EXPECT_EQ(config.eos, (std::vector<int64_t>{128001, 128008, 128009}));
  EXPECT_EQ(config.torch_dtype, "bfloat16");
}

TEST(HfConfig, ReadsLlama4Scout) {
  const Json json = Json::parse(R"({
    "architectures": ["Llama4ForConditionalGeneration"], "boi_token_index": 200080,
    "eoi_token_index": 200081, "image_token_index": 200092, "model_type": "llama4",
    "text_config": {"_attn_implementation_autoset": true, "attention_bias": false,
      "attention_chunk_size": 8192, "attention_dropout": 0.0, "attn_scale": 0.1,
      "attn_temperature_tuning": 4, "bos_token_id": 200000, "cache_implementation": "hybrid",
      "eos_token_id": [200001, 200007, 200008], "floor_scale": 8192, "for_llm_compressor": false,
      "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "initializer_range": 0.02,
      "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
      "max_position_embeddings": 10485760, "model_type": "llama4_text", "no_rope_layers": [],
      "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48,
      "num_key_value_heads": 8, "num_local_experts": 16, "output_router_logits": false,
      "pad_token_id": 200018, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0,
        "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3"},
      "rope_theta": 500000.0, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
      "torch_dtype": "bfloat16", "use_cache": true, "use_qk_norm": true, "vocab_size": 202048},
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0.dev0",
    "vision_config": {"model_type": "llama4_vision_model", "hidden_size": 1408}})");
  ModelConfig expected = default_config(ModelFamily::llama4_text);
  expected.vocab_size = 202048, expected.hidden_size = 5120, expected.intermediate_size = 8192;
  expected.intermediate_size_mlp = 16384, expected.num_hidden_layers = 48;
  expected.num_attention_heads = 40, expected.num_key_value_heads = 8, expected.head_dim = 128;
  expected.max_position_embeddings = 10485760, expected.rope_theta = 500000;
  expected.rope_scaling = RopeScaling{8, 1, 4, 8192};
  const HfConfig config = read(json);
  EXPECT_EQ(config.model, expected);
  EXPECT_EQ(config.tensor_prefix, "language_model.");
  EXPECT_EQ(config.pad, 200018);
}

struct BadValue {
  const char* key;
  Json value;
};

TEST(HfConfig, RefusesValuesOfOtherKinds) {
  const std::vector<BadValue> values = {{"hidden_size", "16"},
                                        {"hidden_size", 16.0},
                                        {"hidden_size", 0},
                                        {"hidden_size", -16},
                                        {"hidden_size", true},
                                        {"hidden_size", int64_t{1} << 40},
                                        {"hidden_size", {16}},
                                        {"num_hidden_layers", 100'000},
                                        {"num_attention_heads", 3},
                                        {"num_key_value_heads", 3},
                                        {"head_dim", 5},
                                        {"vocab_size", 0},
                                        {"max_position_embeddings", 0},
                                        {"rms_norm_eps", 0},
                                        {"rms_norm_eps", "1e-5"},
                                        {"rms_norm_eps", -1},
                                        {"initializer_range", -1},
                                        {"tie_word_embeddings", 1},
                                        {"tie_word_embeddings", "false"},
                                        {"attention_bias", 0},
                                        {"mlp_bias", "yes"},
                                        {"pretraining_tp", 2},
                                        {"is_decoder", true},
                                        {"rope_theta", 0},
                                        {"rope_theta", "1e4"},
                                        {"torch_dtype", "int8"},
                                        {"torch_dtype", 32},
                                        {"model_type", "mistral"},
                                        {"model_type", nullptr},
                                        {"model_type", 1},
                                        {"architectures", {"LlamaForSequenceClassification"}},
                                        {"architectures", "LlamaForCausalLM"},
                                        {"rope_scaling", 8},
                                        {"rope_scaling", {{"rope_type", "yarn"}, {"factor", 8}}},
                                        {"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                                        {"rope_scaling", {{"factor", 2}}},
                                        {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}}}};
  for (const BadValue& bad : values) {
    const std::string message = error_with(small_llama(), bad.key, bad.value);
    EXPECT_EQ(message.find("config.json: "), 0u) << bad.key << " " << bad.value << ": " << message;
  }
  const Json scaling = llama3_scaling();
  for (const auto& [key, value] : scaling.items()) {
    Json json = small_llama();
    json["rope_scaling"] = llama3_scaling();
    EXPECT_EQ(error_of_text(json.dump()), "");
    json["rope_scaling"][key] = -1;
    EXPECT_NE(error_of_text(json.dump()), "") << key;
    json["rope_scaling"][key] = "x";
    EXPECT_NE(error_of_text(json.dump()), "") << key;
    json["rope_scaling"].erase(key);
    EXPECT_NE(error_of_text(json.dump()), "") << key;
  }
}

TEST(HfConfig, RefusesValuesOfLlama4) {
  const std::vector<BadValue> values = {{"num_local_experts", 0},
                                        {"num_experts_per_tok", 5},
                                        {"moe_layers", {4}},
                                        {"moe_layers", {1, 1}},
                                        {"moe_layers", 1},
                                        {"moe_layers", {1.5}},
                                        {"no_rope_layers", {1}},
                                        {"no_rope_layers", {1, 1, 1, 2}},
                                        {"no_rope_layer_interval", 0},
                                        {"interleave_moe_layer_step", 0},
                                        {"layer_types", {"full_attention"}},
                                        {"layer_types", Json::array({"a", "a", "a", "a"})},
                                        {"attention_chunk_size", 0},
                                        {"floor_scale", 0.5},
                                        {"floor_scale", 8192.5},
                                        {"attn_scale", -1},
                                        {"attn_temperature_tuning", 5},
                                        {"attn_temperature_tuning", "yes"},
                                        {"mlp_bias", true},
                                        {"moe_layers", std::vector<int64_t>(20'000, 1)}};
  for (const BadValue& bad : values) {
    const std::string message = error_with(small_llama4(), bad.key, bad.value);
    EXPECT_EQ(message.find("config.json: "), 0u) << bad.key << " " << bad.value << ": " << message;
    EXPECT_LT(message.size(), 400u) << message;
  }
  EXPECT_EQ(error_with(small_llama4(), "attn_temperature_tuning", 4), "")
      << "as in the first files";
}

TEST(HfConfig, RefusesTextsThatAreNone) {
  const std::string deep = R"({"model_type":"llama","vision_config":)" + std::string(40, '[') +
                           std::string(40, ']') + "}";
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("{}"),
        std::string("{} {}"), std::string(R"({"model_type":"llama","model_type":"llama"})"),
        std::string(R"({"model_type":"llama","vocab_size":NaN})"),
        std::string("{\"model_type\":\"\xFF\"}"), deep}) {
    EXPECT_EQ(error_of_text(text).find("config.json: "), 0u) << text;
  }
}

// Lists that say what is so anyway, and lists that do not.
TEST(HfConfig, ModelsThatAreTheSameAreEqual) {
  const auto model_with = [](const Json& change) {
    Json json = small_llama4();
    json.update(change);
    return read(json).model;
  };
  const ModelConfig plain = model_with(Json::object());
  EXPECT_EQ(model_with({{"moe_layers", {0, 1, 2, 3}}}), plain);
  EXPECT_EQ(model_with({{"no_rope_layers", {1, 1, 1, 0}}}), plain);
  EXPECT_EQ(model_with({{"layer_types",
                         {"chunked_attention", "chunked_attention", "chunked_attention",
                          "full_attention"}}}),
            plain);
  EXPECT_EQ(model_with({{"moe_layers", {1, 3}}}).interleave_moe_layer_step, 2);
  EXPECT_EQ(model_with({{"moe_layers", {1, 3}}}).moe_layers, std::nullopt);
  EXPECT_EQ(model_with({{"moe_layers", {0, 3}}}).moe_layers, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(model_with({{"no_rope_layers", {1, 0, 1, 0}}}).no_rope_layer_interval, 2);
  EXPECT_NE(model_with({{"no_rope_layers", {1, 0, 1, 1}}}), plain);
  EXPECT_EQ(
      model_with({{"layer_types",
                   {"full_attention", "full_attention", "full_attention", "full_attention"}}}),
      model_with({{"attention_chunk_size", nullptr}}));
}
}  // namespace
}  // namespace caravan
