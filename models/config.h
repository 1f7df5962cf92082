// The numbers that define a model, with the key names of Hugging Face's config.json. Plain data:
// what the numbers build is in the file of the family, how they are read in
// launch/config_schema.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/ops.h"

namespace caravan {

enum class ModelFamily : uint8_t { llama, llama4_text };
std::string_view name(ModelFamily family);

// What the keys of a layer see: all before it, or those of its chunk.
enum class LayerType : uint8_t { full_attention, chunked_attention };

struct ModelConfig {
  std::string init_from;  // whose weights training starts from, a path; "": from random ones
  ModelFamily family = ModelFamily::llama;
  int64_t vocab_size = 0;  // 0: not given, the vocabulary of the data
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // of an MLP; with experts that of each, the shared one too
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // 0: not given, see with_derived_sizes
  int64_t head_dim = 0;             // 0: not given, see with_derived_sizes
  int64_t max_position_embeddings = 2048;
  double initializer_range = 0.02;
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = false;
  double rope_theta = 10000.0;
  std::optional<RopeScaling> rope_scaling;
  bool attention_bias = false;  // on q, k, v and o
  bool mlp_bias = false;        // on gate, up and down; llama only

  // Mixture of experts; of no meaning without experts.
  int64_t num_local_experts = 0;  // 0: none
  int64_t num_experts_per_tok = 1;
  int64_t intermediate_size_mlp = 0;               // of layers without experts, if there are both
  int64_t interleave_moe_layer_step = 1;           // the last of so many layers has experts
  std::optional<std::vector<int64_t>> moe_layers;  // instead: these layers have

  // llama4_text only. Rope layers turn queries and keys, the others (NoPE) see no positions.
  std::vector<int64_t> no_rope_layers;  // by layer: 1 has rope, 0 not; {}: by the interval
  int64_t no_rope_layer_interval = 4;   // the last of so many layers has no rope
  int64_t attention_chunk_size = 8192;  // 0: none
  std::vector<LayerType> layer_types;   // {}: rope layers are chunked
  bool use_qk_norm = true;              // of rope layers
  bool attn_temperature_tuning = true;  // of the others
  double floor_scale = 8192;
  double attn_scale = 0.1;

  bool operator==(const ModelConfig&) const = default;
};

// What holds for a family where nothing else is said; llama: ModelConfig{}.
ModelConfig default_config(ModelFamily family);

// Of layers, from 0.
bool has_experts(const ModelConfig& config, int64_t layer);
bool has_rope(const ModelConfig& config, int64_t layer);
bool is_chunked(const ModelConfig& config, int64_t layer);
// The width of the MLP of a layer without experts.
int64_t dense_width(const ModelConfig& config);

// Throws a config error, one line with all numbers and the fix, when no model can have these sizes.
void validate(const ModelConfig& config);

// Fills in what the family derives when it is not given: num_key_value_heads = num_attention_heads
// and head_dim = hidden_size / num_attention_heads. Validates first.
ModelConfig with_derived_sizes(const ModelConfig& config);

}  // namespace caravan
