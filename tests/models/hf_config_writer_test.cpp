// Writing config.json, and reading it back.
#include <gtest/gtest.h>

#include "runtime/error.h"
#include "tests/models/hf_config_support.h"

namespace caravan {
namespace {

std::string write_error(const HfConfig& config) {
  try {
    write_hf_config(config, DType::f32, "0.1.0");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    return error.what();
  }
  return "";
}

HfConfig full_llama() {
  HfConfig config = read(small_llama());
  config.model.rope_scaling = RopeScaling{8, 1, 4, 8192};
  config.model.rope_theta = 500000;
  config.model.attention_bias = config.model.mlp_bias = true;
  config.model.tie_word_embeddings = true;
  config.model.rms_norm_eps = 1e-5;
  config.model.initializer_range = 0.1;
  config.bos = 7, config.pad = 9, config.eos = {3, 4};
  config.torch_dtype = "bfloat16";
  return config;
}

HfConfig read_back(const HfConfig& config, DType dtype) {
  return read_hf_config(write_hf_config(config, dtype, "0.1.0"), "written");
}

TEST(HfConfigWriter, IsReadAsItWasWritten) {
  EXPECT_EQ(read_back(full_llama(), DType::bf16), full_llama());
  HfConfig bare = read(small_llama());
  bare.bos.reset(), bare.eos.clear();
  bare.torch_dtype = "float32";
  EXPECT_EQ(read_back(bare, DType::f32), bare);

  const std::vector<Json> changes = {
      Json::object(),
      {{"moe_layers", {1, 2}}},
      {{"moe_layers", Json::array()}},
      {{"interleave_moe_layer_step", 2}, {"num_experts_per_tok", 3}},
      {{"interleave_moe_layer_step", 9}},
      {{"no_rope_layers", {0, 1, 1, 0}}},
      {{"no_rope_layers", {0, 0, 0, 0}}},
      {{"no_rope_layers", {1, 1, 1, 1}}},
      {{"no_rope_layer_interval", 2}},
      {{"layer_types",
        {"chunked_attention", "full_attention", "full_attention", "chunked_attention"}}},
      {{"attention_chunk_size", nullptr}},
      {{"attention_chunk_size", 12}, {"use_qk_norm", false}, {"attn_temperature_tuning", false}},
      {{"floor_scale", 5}, {"attn_scale", 0.4}, {"rope_scaling", llama3_scaling()}},
      {{"intermediate_size_mlp", 0}}};
  for (const Json& change : changes) {
    Json json = small_llama4();
    json.update(change);
    HfConfig config = read(json);
    config.torch_dtype = "float32";
    EXPECT_EQ(read_back(config, DType::f32), config) << change;
    EXPECT_EQ(canonical(config.model), config.model) << change;
    for (int64_t layer = 0; layer < 4; ++layer) {
      const ModelConfig back = read_back(config, DType::f32).model;
      EXPECT_EQ(has_rope(back, layer), has_rope(config.model, layer));
      EXPECT_EQ(is_chunked(back, layer), is_chunked(config.model, layer));
      EXPECT_EQ(has_experts(back, layer), has_experts(config.model, layer));
    }
  }
}

TEST(HfConfigWriter, WritesTheKeysOfVersion4) {
  const Json json = Json::parse(write_hf_config(full_llama(), DType::bf16, "0.1.0"));
  EXPECT_EQ(json, Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "hidden_act": "silu",
    "max_position_embeddings": 2048, "initializer_range": 0.1, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": true, "rope_theta": 500000.0, "attention_bias": true,
    "attention_dropout": 0.0, "mlp_bias": true, "pretraining_tp": 1, "use_cache": true,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "bos_token_id": 7, "eos_token_id": [3, 4], "pad_token_id": 9,
    "transformers_version": "4.57.3", "caravan_version": "0.1.0"})"));
  EXPECT_EQ(Json::parse(write_generation_config(full_llama())), Json::parse(R"({
    "_from_model_config": true, "bos_token_id": 7, "eos_token_id": [3, 4], "pad_token_id": 9,
    "transformers_version": "4.57.3"})"));

  Json chunkless = small_llama4();
  chunkless["attention_chunk_size"] = nullptr;
  const Json four = Json::parse(write_hf_config(read(chunkless), DType::f32, "0.1.0"));
  EXPECT_EQ(four.at("architectures"), Json::array({"Llama4ForCausalLM"}));
  EXPECT_EQ(four.at("attention_chunk_size"), 131072) << "transformers needs a number";
  EXPECT_EQ(four.at("layer_types"), Json(std::vector<std::string>(4, "full_attention")));
  EXPECT_EQ(four.at("moe_layers"), Json::array({0, 1, 2, 3}));
  EXPECT_EQ(four.at("no_rope_layers"), Json::array({1, 1, 1, 0}));
  EXPECT_TRUE(four.at("floor_scale").is_number_integer());
}

TEST(HfConfigWriter, RefusesToWriteWhatTransformersHasNot) {
  HfConfig config = read(small_llama());
  EXPECT_EQ(write_error(config), "");
  config.model.num_local_experts = 4;
  EXPECT_NE(write_error(config).find("use family llama4_text"), std::string::npos);
  config = read(small_llama());
  config.model.head_dim = 8;
  config.model.hidden_size = 18;
  EXPECT_NE(write_error(config).find("hidden_size 18"), std::string::npos);
  config = read(small_llama());
  config.model.initializer_range = 2;
  EXPECT_NE(write_error(config).find("initializer_range 2"), std::string::npos);
  config = read(small_llama4());
  config.model.floor_scale = 0.5;
  EXPECT_NE(write_error(config).find("floor_scale 0.5"), std::string::npos);
}

}  // namespace
}  // namespace caravan
