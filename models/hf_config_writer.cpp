// Writing config.json and generation_config.json; reading is in hf_config.cpp.
#include <cmath>
#include <nlohmann/json.hpp>

#include "models/hf_config.h"
#include "runtime/error.h"

namespace caravan {
namespace {

// The dialect of the files. A version of transformers, since that compares it with others.
constexpr const char* kTransformersVersion = "4.57.3";

template <typename T>
nlohmann::json or_null(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

nlohmann::json eos_of(const HfConfig& config) {
  if (config.eos.empty()) return nullptr;
  return config.eos.size() == 1 ? nlohmann::json(config.eos.front()) : nlohmann::json(config.eos);
}

nlohmann::json rope_scaling_of(const ModelConfig& m) {
  if (!m.rope_scaling) return nullptr;
  const RopeScaling& r = *m.rope_scaling;
  return {{"rope_type", "llama3"},
          {"factor", r.factor},
          {"low_freq_factor", r.low_freq_factor},
          {"high_freq_factor", r.high_freq_factor},
          {"original_max_position_embeddings", r.original_max_position_embeddings}};
}

// What transformers itself refuses to load.
void expect_writable(const ModelConfig& m) {
  const bool is_llama = m.family == ModelFamily::llama;
  if (is_llama && m.num_local_experts > 0) {
    throw config_error(
        "model: transformers has no family llama with experts; use family llama4_text for "
        "models that go to Hugging Face");
  }
  if (is_llama && m.hidden_size % m.num_attention_heads != 0) {
    throw config_error(
        absl::StrFormat("model: transformers refuses hidden_size %d, as it is not a multiple of "
                        "num_attention_heads %d; other sizes can be exported",
                        m.hidden_size, m.num_attention_heads));
  }
  if (m.initializer_range > 1) {
    throw config_error(
        absl::StrFormat("model: transformers refuses initializer_range %g, as it is more than 1",
                        m.initializer_range));
  }
  if (!is_llama && m.floor_scale != std::floor(m.floor_scale)) {
    throw config_error(absl::StrFormat(
        "model: transformers refuses floor_scale %g, as it is no integer", m.floor_scale));
  }
}

// Keys of both families. All are written, also those that say what is the default: defaults have
// changed between versions of transformers.
nlohmann::json common_keys(const HfConfig& config, DType dtype, const std::string& tool_version) {
  const ModelConfig& m = config.model;
  check(dtype == DType::f32 || dtype == DType::bf16, "weights in %s", name(dtype));
  return {{"model_type", name(m.family)},
          {"vocab_size", m.vocab_size},
          {"hidden_size", m.hidden_size},
          {"intermediate_size", m.intermediate_size},
          {"num_hidden_layers", m.num_hidden_layers},
          {"num_attention_heads", m.num_attention_heads},
          {"num_key_value_heads", m.num_key_value_heads},
          {"head_dim", m.head_dim},
          {"hidden_act", "silu"},
          {"max_position_embeddings", m.max_position_embeddings},
          {"initializer_range", m.initializer_range},
          {"rms_norm_eps", m.rms_norm_eps},
          {"tie_word_embeddings", m.tie_word_embeddings},
          {"rope_theta", m.rope_theta},
          {"rope_scaling", rope_scaling_of(m)},
          {"attention_bias", m.attention_bias},
          {"attention_dropout", 0.0},
          {"use_cache", true},
          {"bos_token_id", or_null(config.bos)},
          {"eos_token_id", eos_of(config)},
          {"pad_token_id", or_null(config.pad)},
          {"torch_dtype", dtype == DType::f32 ? "float32" : "bfloat16"},
          {"transformers_version", kTransformersVersion},
          {"caravan_version", tool_version}};
}

void add_llama_keys(const ModelConfig& m, nlohmann::json& json) {
  json["architectures"] = {"LlamaForCausalLM"};
  json["mlp_bias"] = m.mlp_bias;
  json["pretraining_tp"] = 1;
}

// Lists by layer are written out, so that readers need not know how they are derived.
void add_llama4_keys(const ModelConfig& m, nlohmann::json& json) {
  nlohmann::json moe_layers = nlohmann::json::array(), rope_layers = nlohmann::json::array(),
                 types = nlohmann::json::array();
  for (int64_t layer = 0; layer < m.num_hidden_layers; ++layer) {
    if (has_experts(m, layer)) moe_layers.push_back(layer);
    rope_layers.push_back(has_rope(m, layer) ? 1 : 0);
    types.push_back(is_chunked(m, layer) ? "chunked_attention" : "full_attention");
  }
  // transformers cannot make its masks without a number, also where no layer is chunked.
  const bool has_chunks = m.attention_chunk_size > 0;
  json.update(
      {{"architectures", {"Llama4ForCausalLM"}},
       {"num_local_experts", m.num_local_experts},
       {"num_experts_per_tok", m.num_experts_per_tok},
       {"intermediate_size_mlp", m.intermediate_size_mlp},
       {"interleave_moe_layer_step", m.interleave_moe_layer_step},
       {"moe_layers", moe_layers},
       {"no_rope_layers", rope_layers},
       {"no_rope_layer_interval", m.no_rope_layer_interval},
       {"attention_chunk_size", has_chunks ? m.attention_chunk_size : m.max_position_embeddings},
       {"layer_types", types},
       {"use_qk_norm", m.use_qk_norm},
       {"attn_temperature_tuning", m.attn_temperature_tuning},
       {"floor_scale", static_cast<int64_t>(m.floor_scale)},
       {"attn_scale", m.attn_scale},
       {"output_router_logits", false},
       {"router_aux_loss_coef", 0.001},
       {"router_jitter_noise", 0.0}});
}

}  // namespace

std::string write_hf_config(const HfConfig& config, DType dtype, const std::string& tool_version) {
  HfConfig full = config;
  full.model = canonical(config.model);
  expect_writable(full.model);
  nlohmann::json json = common_keys(full, dtype, tool_version);
  if (full.model.family == ModelFamily::llama) {
    add_llama_keys(full.model, json);
  } else {
    add_llama4_keys(full.model, json);
  }
  return json.dump(2) + "\n";
}

std::string write_generation_config(const HfConfig& config) {
  nlohmann::json json = {{"_from_model_config", true},
                         {"transformers_version", kTransformersVersion}};
  if (config.bos) json["bos_token_id"] = *config.bos;
  if (!config.eos.empty()) json["eos_token_id"] = eos_of(config);
  if (config.pad) json["pad_token_id"] = *config.pad;
  return json.dump(2) + "\n";
}

}  // namespace caravan
