// Sizes that no model can have.
#include "models/config.h"

#include "tests/launch/messages.h"

namespace caravan {
namespace {

ModelConfig small() {
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
  ModelConfig config = with_derived_sizes(small());
  EXPECT_EQ(config.num_key_value_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  EXPECT_EQ(with_derived_sizes(config), config);
}

TEST(ModelConfig, RefusesHeadsThatDoNotDivide) {
  ModelConfig config = small();
  config.num_attention_heads = 6;
  config.num_key_value_heads = 4;
  EXPECT_EQ(message_of(config),
            "model: num_attention_heads 6 is not divisible by num_key_value_heads 4; every "
            "key-value head serves the same number of heads, so use a divisor of 6");
  config = small();
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
  ModelConfig config = small();
  config.num_hidden_layers = 0;
  EXPECT_EQ(message_of(config), "model: num_hidden_layers is 0; it must be positive");
  config = small();
  config.rms_norm_eps = 0;
  EXPECT_EQ(message_of(config), "model: rms_norm_eps is 0; it must be positive");
}

TEST(ModelConfig, RefusesRopeScalingThatShrinks) {
  ModelConfig config = small();
  config.rope_scaling = RopeScaling{.factor = 0.5};
  EXPECT_EQ(message_of(config), "model: rope_scaling.factor is 0.5; it must be at least 1");
  config.rope_scaling = RopeScaling{.low_freq_factor = 4, .high_freq_factor = 1};
  EXPECT_EQ(message_of(config),
            "model: rope_scaling: low_freq_factor 4 and high_freq_factor 1; they must be positive, "
            "and high at least low");
  config.rope_scaling = RopeScaling{};
  EXPECT_EQ(message_of(config), "");
}

}  // namespace
}  // namespace caravan
