// The numbers that define a model, with the key names of Hugging Face's config.json. Plain data:
// what the numbers build is in the file of the family, how they are read in
// launch/config_schema.cpp.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/ops.h"

namespace caravan {

enum class ModelFamily : uint8_t { llama };

struct ModelConfig {
  ModelFamily family = ModelFamily::llama;
  int64_t vocab_size = 0;  // 0: not given, the vocabulary of the data
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
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
  bool mlp_bias = false;        // on gate, up and down
  int64_t num_local_experts = 0;
  int64_t num_experts_per_tok = 1;

  bool operator==(const ModelConfig&) const = default;
};

// Throws a config error, one line with all numbers and the fix, when no model can have these sizes.
void validate(const ModelConfig& config);

// Fills in what the family derives when it is not given: num_key_value_heads = num_attention_heads
// and head_dim = hidden_size / num_attention_heads. Validates first.
ModelConfig with_derived_sizes(const ModelConfig& config);

}  // namespace caravan
