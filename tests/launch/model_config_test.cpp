// Sizes that no model can have.
#include "models/config.h"

#include "tests/launch/messages.h"

namespace caravan {
namespace {

ModelConfig small_model() {
  ModelConfig config;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  return config;
}

std::string message_of(const ModelConfig& config) {
  return config_message([&] { validate(config); });
}

TEST(ModelConfig, DerivesWhatIsLeftOut) {
  ModelConfig config = with_derived_sizes(small_model());
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  EXPECT_EQ(with_derived_sizes(config), config);
}

TEST(ModelConfig, RefusesHeadsThatDoNotDivide) {
  ModelConfig config = small_model();
  config.num_attention_heads = 6;
  config.num_key_value_heads = 4;
  EXPECT_EQ(message_of(config),
            "model: num_attention_heads 6 is not divisible by num_key_value_heads 4; every "
            "key-value head serves the same number of heads, so use a divisor of 6");
  config = small_model();
  config.num_attention_heads = 6;
  EXPECT_EQ(message_of(config),
            "model: hidden_size 64 is not divisible by num_attention_heads 6; use hidden_size 66, "
            "or give head_dim");
  config.head_dim = 16;
  EXPECT_EQ(message_of(config), "");
  config.head_dim = 15;
  EXPECT_EQ(message_of(config),
            "model: head_dim 15 is odd (hidden_size 64, num_attention_heads 6); rope turns pairs "
            "of channels, so it must be even");
}

TEST(ModelConfig, RefusesSizesThatAreNotPositive) {
  ModelConfig config = small_model();
  config.num_hidden_layers = 0;
  EXPECT_EQ(message_of(config), "model: num_hidden_layers is 0; it must be positive");
  config = small_model();
  config.rms_norm_eps = 0;
  EXPECT_EQ(message_of(config), "model: rms_norm_eps is 0; it must be positive");
}

TEST(ModelConfig, RefusesRopeScalingThatShrinks) {
  ModelConfig config = small_model();
  config.rope_scaling = RopeScaling{.factor = 0.5};
  EXPECT_EQ(message_of(config), "model: rope_scaling.factor is 0.5; it must be at least 1");
  config.rope_scaling = RopeScaling{.low_freq_factor = 4, .high_freq_factor = 1};
  EXPECT_EQ(message_of(config),
            "model: rope_scaling: low_freq_factor 4 and high_freq_factor 1; they must be positive, "
            "and high at least low");
  config.rope_scaling = RopeScaling{};
  EXPECT_EQ(message_of(config), "");
}

ModelConfig small_llama4() {
  ModelConfig config = default_config(ModelFamily::llama4_text);
  config.hidden_size = 64;
  config.intermediate_size = 32;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 4;
  return config;
}

// The layers of which something is true: "0 2 3".
std::string layers_of(const ModelConfig& config, bool (*holds)(const ModelConfig&, int64_t)) {
  std::string layers;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (holds(config, layer)) layers += (layers.empty() ? "" : " ") + std::to_string(layer);
  }
  return layers;
}

TEST(ModelConfig, Llama4HasHuggingFacesDefaults) {
  const ModelConfig config = with_derived_sizes(small_llama4());
  EXPECT_EQ(config.num_local_experts, 16);
  EXPECT_EQ(config.num_experts_per_tok, 1);
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_EQ(config.max_position_embeddings, 131072);
  EXPECT_EQ(config.attention_chunk_size, 8192);
  EXPECT_EQ(layers_of(config, has_experts), "0 1 2 3");
  EXPECT_EQ(layers_of(config, has_rope), "0 1 2");
  EXPECT_EQ(layers_of(config, is_chunked), "0 1 2");
}

TEST(ModelConfig, LayersFollowStepsOrLists) {
  ModelConfig config = small_llama4();
  config.intermediate_size_mlp = 48;
  config.interleave_moe_layer_step = 2;
  config.no_rope_layer_interval = 2;
  EXPECT_EQ(layers_of(config, has_experts), "1 3");
  EXPECT_EQ(layers_of(config, has_rope), "0 2");
  config.moe_layers = {{0, 3}};
  config.no_rope_layers = {0, 1, 1, 0};
  EXPECT_EQ(layers_of(config, has_experts), "0 3");
  EXPECT_EQ(layers_of(config, has_rope), "1 2");
  EXPECT_EQ(layers_of(config, is_chunked), "1 2");
  config.layer_types = {LayerType::chunked_attention, LayerType::full_attention,
                        LayerType::chunked_attention, LayerType::full_attention};
  EXPECT_EQ(layers_of(config, is_chunked), "0 2");
  EXPECT_EQ(message_of(config), "");
  config.moe_layers = std::vector<int64_t>{};
  EXPECT_EQ(layers_of(config, has_experts), "");
  EXPECT_EQ(dense_width(config), 48);
}

// Without experts nothing but the plain width exists.
TEST(ModelConfig, LlamaMayHaveExperts) {
  ModelConfig config = small_model();
  EXPECT_EQ(layers_of(config, has_experts), "");
  EXPECT_EQ(dense_width(config), 128);
  config.num_local_experts = 8;
  EXPECT_EQ(layers_of(config, has_experts), "0 1");
  EXPECT_EQ(layers_of(config, has_rope), "0 1");
  EXPECT_EQ(layers_of(config, is_chunked), "");
  EXPECT_EQ(message_of(config), "");
}

TEST(ModelConfig, RefusesExpertsThatCannotBe) {
  ModelConfig config = small_llama4();
  config.num_experts_per_tok = 17;
  EXPECT_EQ(message_of(config),
            "model: num_experts_per_tok is 17; it must be from 1 to num_local_experts 16");
  config = small_llama4();
  config.interleave_moe_layer_step = 2;
  EXPECT_EQ(message_of(config),
            "model: layer 0 has no experts and intermediate_size_mlp, its width, is not given; "
            "give it (intermediate_size is that of experts)");
  config = small_llama4();
  config.moe_layers = {{1, 4}};
  EXPECT_EQ(message_of(config), "model: moe_layers has 4, but the 4 layers are 0 to 3; use those");
  config.moe_layers = {{0, 1, 2, 1}};
  EXPECT_EQ(message_of(config), "model: moe_layers has 1 twice; remove one");
  config = small_llama4();
  config.num_local_experts = 0;
  EXPECT_EQ(message_of(config),
            "model: num_local_experts is 0; it must be positive (a model without experts: "
            "moe_layers [])");
}

TEST(ModelConfig, RefusesLayersThatCannotBe) {
  ModelConfig config = small_llama4();
  config.no_rope_layers = {1, 0};
  EXPECT_EQ(message_of(config),
            "model: no_rope_layers has 2 entries, but there are 4 layers; give one for each, or "
            "remove it");
  config.no_rope_layers = {1, 0, 2, 0};
  EXPECT_EQ(message_of(config), "model: no_rope_layers has 2; use 1 (rope) or 0 (none)");
  config = small_llama4();
  config.layer_types = {LayerType::full_attention};
  EXPECT_EQ(message_of(config),
            "model: layer_types has 1 entries, but there are 4 layers; give one for each, or "
            "remove it");
  config.layer_types.assign(4, LayerType::chunked_attention);
  EXPECT_EQ(message_of(config), "");
  config.attention_chunk_size = 0;
  EXPECT_EQ(message_of(config),
            "model: layer_types has chunked_attention, but attention_chunk_size is null; give it, "
            "or use full_attention");
  config = small_llama4();
  config.mlp_bias = true;
  EXPECT_EQ(message_of(config),
            "model: mlp_bias is true, but family llama4_text has none; use mlp_bias false");
  config = small_llama4();
  config.floor_scale = 0;
  EXPECT_EQ(message_of(config),
            "model: floor_scale is 0 and attn_scale 0.1; the first must be positive, the second "
            "not negative");
}

}  // namespace
}  // namespace caravan
