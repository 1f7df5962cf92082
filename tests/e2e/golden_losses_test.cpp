// Caravan against PyTorch: the same initial weights, tokens and optimizer give the same losses and
// gradient norms, step by step. tests/golden/README.md says what the files hold and how to remake
// them.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "optim/lr_schedule.h"
#include "runtime/rng.h"
#include "tests/support/folders.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

using Json = nlohmann::json;

Json read_golden(const std::string& file) {
  std::ifstream in(source_folder() + "/tests/golden/" + file);
  return Json::parse(in);
}

ModelConfig model_of(const Json& json) {
  ModelConfig model;
  model.vocab_size = json.at("vocab_size");
  model.hidden_size = json.at("hidden_size");
  model.intermediate_size = json.at("intermediate_size");
  model.num_hidden_layers = json.at("num_hidden_layers");
  model.num_attention_heads = json.at("num_attention_heads");
  model.num_key_value_heads = json.at("num_key_value_heads");
  model.head_dim = json.at("head_dim");
  model.rms_norm_eps = json.at("rms_norm_eps");
  model.rope_theta = json.at("rope_theta");
  model.tie_word_embeddings = json.at("tie_word_embeddings");
  model.attention_bias = json.at("attention_bias");
  model.mlp_bias = json.at("mlp_bias");
  model.initializer_range = json.at("initializer_range");
  if (const Json& scaling = json.at("rope_scaling"); !scaling.is_null()) {
    EXPECT_EQ(scaling.at("rope_type"), "llama3");
    model.rope_scaling =
        RopeScaling{scaling.at("factor"), scaling.at("low_freq_factor"),
                    scaling.at("high_freq_factor"), scaling.at("original_max_position_embeddings")};
  }
  return model;
}

LrSchedule schedule_of(const Json& recipe) {
  const bool is_cosine = recipe.at("lr_scheduler_type") == "cosine";
  EXPECT_TRUE(is_cosine || recipe.at("lr_scheduler_type") == "constant");
  return {.kind = is_cosine ? LrScheduleKind::cosine : LrScheduleKind::constant,
          .peak = recipe.at("learning_rate"),
          .min_ratio = recipe.at("min_lr_ratio"),
          .warmup_steps = recipe.at("warmup_steps"),
          .max_steps = recipe.at("max_steps")};
}

TrainingRun run_of(const Json& recipe) {
  TrainingRun run;
  run.model = model_of(recipe.at("model"));
  run.sequence_len = recipe.at("sequence_len");
  run.num_sequences = recipe.at("batch_size");
  const Json& max_norm = recipe.at("max_grad_norm");
  run.optimizer = {.beta1 = recipe.at("adam_beta1"),
                   .beta2 = recipe.at("adam_beta2"),
                   .eps = recipe.at("adam_epsilon"),
                   .weight_decay = recipe.at("weight_decay"),
                   .max_grad_norm = max_norm.is_null() ? 0.0f : max_norm.get<float>()};
  run.learning_rate = [schedule = schedule_of(recipe)](int64_t step) {
    return learning_rate(schedule, step);
  };
  run.runner = {.poison_freed = false};
  return run;
}

// Tokens of a step (from 0): (batch, sequence_len + 1), in which odd places follow from even ones.
std::vector<int32_t> tokens_of(const Json& recipe, const TrainingRun& run, int64_t step) {
  const RandomStream stream(recipe.at("data_seed"), RandomPurpose::test,
                            static_cast<uint64_t>(step));
  const int64_t vocab = run.model.vocab_size;
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < run.num_sequences * (run.sequence_len + 1); ++i) {
    const double u = stream.uniform(static_cast<uint64_t>(i));
    const int64_t token = i % 2 == 0
                              ? static_cast<int64_t>(static_cast<double>(vocab) * (u * u * u))
                              : (int64_t{tokens.back()} * 7 + 3) % vocab;
    tokens.push_back(static_cast<int32_t>(token));
  }
  return tokens;
}

// Lengths of the documents of every sequence; one when it is not packed.
std::vector<int64_t> documents_of(const Json& recipe) {
  if (recipe.at("documents").is_null()) return {recipe.at("sequence_len").get<int64_t>()};
  return recipe.at("documents").get<std::vector<int64_t>>();
}

TokenBatch batch_of(const Json& recipe, const TrainingRun& run, int64_t step) {
  const std::vector<int32_t> tokens = tokens_of(recipe, run, step);
  const bool is_packed = !recipe.at("documents").is_null();
  TokenBatch batch;
  for (int64_t sequence = 0; sequence < run.num_sequences; ++sequence) {
    auto token = tokens.begin() + sequence * (run.sequence_len + 1);
    int64_t start = 0;
    for (const int64_t length : documents_of(recipe)) {
      for (int64_t position = 0; position < length; ++position, ++token) {
        const bool ends = is_packed && position + 1 == length;
        batch.input_ids.push_back(*token);
        batch.targets.push_back(ends ? -1 : *(token + 1));
        batch.positions.push_back(static_cast<int32_t>(position));
        batch.document_start.push_back(static_cast<int32_t>(start));
      }
      start += length;
    }
  }
  return batch;
}

void expect_same_start(const Json& golden, const TrainingRun& run) {
  const TokenBatch first = batch_of(golden.at("recipe"), run, 0);
  const auto tokens = golden.at("first_tokens").get<std::vector<int32_t>>();
  EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), first.input_ids.begin()));
  const auto is_counted = [](int32_t target) { return target != -1; };
  EXPECT_EQ(std::ranges::count_if(first.targets, is_counted), golden.at("counted_targets"));
  const HostTensors weights =
      initial_parameters(logical_update_graph(run), run.model.initializer_range);
  ASSERT_EQ(weights.size(), golden.at("first_step").size());
  for (const auto& [name, tensor] : weights) {
    double squares = 0;
    for (int64_t i = 0; i < tensor.size(); ++i) squares += double{tensor.at(i)} * tensor.at(i);
    const double norm = golden.at("first_step").at(name).at("init_norm");
    EXPECT_NEAR(std::sqrt(squares), norm, 1e-6 * norm) << name;
  }
}

void expect_same_curve(const Json& golden, double tolerance, size_t num_steps) {
  const TrainingRun run = run_of(golden.at("recipe"));
  expect_same_start(golden, run);
  std::vector<TokenBatch> batches;
  for (size_t step = 0; step < num_steps; ++step) {
    batches.push_back(batch_of(golden.at("recipe"), run, static_cast<int64_t>(step)));
    EXPECT_NEAR(run.learning_rate(static_cast<int64_t>(step) + 1),
                golden.at("learning_rates")[step].get<double>(), 1e-12);
  }
  const TrainingResult result = train(run, batches);
  for (size_t step = 0; step < batches.size(); ++step) {
    const double loss = golden.at("losses")[step], norm = golden.at("grad_norms")[step];
    EXPECT_NEAR(result.losses[step], loss, tolerance * loss) << "step " << step;
    EXPECT_NEAR(result.grad_norms[step], norm, 10 * tolerance * norm) << "step " << step;
  }
}

class GoldenVariant : public testing::TestWithParam<const char*> {};

TEST_P(GoldenVariant, HasTheLossesOfPyTorch) {
  const Json golden = read_golden("variants.json").at("variants").at(GetParam());
  expect_same_curve(golden, 2e-5, golden.at("losses").size());
}

INSTANTIATE_TEST_SUITE_P(All, GoldenVariant,
                         testing::Values("mha_untied_biases", "gqa_llama3_rope",
                                         "gqa_packed_documents"),
                         [](const auto& info) { return info.param; });

// Warmup and half of the cosine; with CARAVAN_SOAK=1 all 50 steps.
TEST(GoldenLosses, SlowQuickstartModelFollowsPyTorch) {
  const Json golden = read_golden("quickstart_losses.json");
  const bool is_soak = std::getenv("CARAVAN_SOAK") != nullptr;
  expect_same_curve(golden, 1e-3, is_soak ? golden.at("losses").size() : 25);
}

}  // namespace
}  // namespace caravan
