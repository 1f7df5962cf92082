// What `moe` and the mesh make of a model's options.
#include "launch/model_options.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

Config with_experts(int64_t experts, int64_t top_k) {
  Config config;
  config.data.sequence_len = 20;
  config.model.num_local_experts = experts;
  config.model.num_experts_per_tok = top_k;
  config.moe.emplace();
  return config;
}

Mesh mesh_of(int dp, int ep, int tp) { return Mesh{{dp, ep, tp}}; }

TEST(ModelOptions, ModelsWithoutExpertsHaveOnlyAMesh) {
  Config config;
  config.parallel.sequence_parallel = true;
  const ModelOptions one = model_options(config, mesh_of(4, 1, 1), true);
  EXPECT_EQ(one.tensor_parallel, 1);
  EXPECT_FALSE(one.sequence_parallel);  // nobody to share with
  const ModelOptions two = model_options(config, mesh_of(1, 1, 2), false);
  EXPECT_EQ(two.tensor_parallel, 2);
  EXPECT_TRUE(two.sequence_parallel);
  EXPECT_FALSE(two.training);
  EXPECT_EQ(two.aux_loss_coef, 0.0f);
}

TEST(ModelOptions, WithoutDocumentsSequencesAreWhole) {
  Config config;
  EXPECT_FALSE(model_options(config, mesh_of(1, 1, 1), true).whole_sequences);
  config.data.attend_across_documents = true;
  EXPECT_TRUE(model_options(config, mesh_of(1, 1, 1), true).whole_sequences);
  EXPECT_TRUE(model_options(config, mesh_of(1, 1, 1), false).whole_sequences);
}

TEST(ModelOptions, RowsOfAPass) {
  Config config = with_experts(4, 2);
  const auto rows = [&](int ep) {
    return model_options(config, mesh_of(1, ep, 1), true).slots.per_sequence;
  };
  EXPECT_EQ(rows(1), 40);  // auto: what is routed
  EXPECT_EQ(rows(2), 60);
  config.moe->slots = 0.55;
  EXPECT_EQ(rows(1), 22);
  config.moe->slots = 1.01;
  EXPECT_EQ(rows(2), 41);
  config.moe->slots = 1e-6;  // as few as possible: one for each rank that sends
  EXPECT_EQ(rows(1), 1);
  EXPECT_EQ(rows(4), 4);
  const Slots slots = model_options(config, mesh_of(1, 4, 1), true).slots;
  EXPECT_EQ(slots.sequence_len, 20);
  EXPECT_FALSE(slots.drops);
}

// What is beyond could not be used: the memory is not taken, however much is asked for.
TEST(ModelOptions, NoMoreRowsThanTokensCanNeed) {
  Config config = with_experts(4, 2);
  const auto rows = [&](int ep) {
    return model_options(config, mesh_of(1, ep, 1), true).slots.per_sequence;
  };
  config.moe->slots = 1e6;
  EXPECT_EQ(rows(1), 40);
  EXPECT_EQ(rows(2), 80);  // both picks of the tokens of both ranks
  EXPECT_EQ(rows(4), 80);  // a rank has one expert: of each token one pick
  config.moe->slots.reset();
  config.moe->capacity_factor = 1e30;
  EXPECT_EQ(rows(2), 4 * 20);
}

TEST(ModelOptions, CapacityIsTheSameForEveryExpert) {
  Config config = with_experts(8, 1);
  config.moe->capacity_factor = 1.25;
  const Slots slots = model_options(config, mesh_of(2, 4, 1), true).slots;
  EXPECT_TRUE(slots.drops);
  EXPECT_EQ(slots.per_sequence, 8 * 4);  // 1.25 * 20 / 8 = 3.125
  config.moe->capacity_factor = 0.01;
  EXPECT_EQ(model_options(config, mesh_of(2, 4, 1), true).slots.per_sequence, 8);
}

TEST(ModelOptions, OneWayOfBalancing) {
  Config config = with_experts(4, 1);
  config.moe->aux_loss_coef = 0.25;
  config.moe->z_loss_coef = 0.5;
  const auto options = [&](Balance balance) {
    config.moe->balance = balance;
    return model_options(config, mesh_of(1, 1, 1), true);
  };
  EXPECT_TRUE(options(Balance::bias).router_bias);
  EXPECT_EQ(options(Balance::bias).aux_loss_coef, 0.0f);
  EXPECT_FALSE(options(Balance::aux_loss).router_bias);
  EXPECT_EQ(options(Balance::aux_loss).aux_loss_coef, 0.25f);
  EXPECT_FALSE(options(Balance::none).router_bias);
  EXPECT_EQ(options(Balance::none).aux_loss_coef, 0.0f);
  EXPECT_EQ(options(Balance::none).z_loss_coef, 0.5f);
}

}  // namespace
}  // namespace caravan
