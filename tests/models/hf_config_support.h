// What the tests of config.json share: small configs as JSON.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/hf_config.h"

namespace caravan {

using Json = nlohmann::json;

inline HfConfig read(const Json& json, const std::vector<std::string>& ignored = {}) {
  return read_hf_config(json.dump(), "config.json", ignored);
}

inline Json small_llama() {
  return {{"model_type", "llama"},    {"architectures", {"LlamaForCausalLM"}},
          {"vocab_size", 48},         {"hidden_size", 16},
          {"intermediate_size", 24},  {"num_hidden_layers", 2},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2}};
}

inline Json small_llama4() {
  return {{"model_type", "llama4_text"},
          {"architectures", {"Llama4ForCausalLM"}},
          {"vocab_size", 48},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"intermediate_size_mlp", 40},
          {"num_hidden_layers", 4},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 8},
          {"num_local_experts", 4}};
}

inline Json llama3_scaling() {
  return {{"rope_type", "llama3"},
          {"factor", 8.0},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

}  // namespace caravan
