// Training steps of tiny models on the device, through every pass: like the CPU's up to rounding,
// and the same bits whether steps are recorded or not. Ranks are threads that share the device.
#include <gtest/gtest.h>

#include "runtime/cuda/cuda.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

constexpr double kTolerance = 1e-4;

TrainingRun on_device(TrainingRun run, bool graphs) {
  run.num_sequences = 8;
  run.runner.poison_freed = false;  // or nothing is recorded
  run.runner.make_backend = [graphs] {
    return make_cuda_backend({.deterministic = true, .graphs = graphs});
  };
  return run;
}

TrainingRun experts_run() {
  TrainingRun run = tiny_llama4_run();
  run.model.moe_layers.reset();
  run.model.num_local_experts = 4;
  run.model.num_experts_per_tok = 2;
  run.model.interleave_moe_layer_step = 2;
  // Half of the rows that picks need: the rest goes through in a repeat.
  run.options.slots = {.sequence_len = run.sequence_len, .per_sequence = run.sequence_len};
  return run;
}

TrainingResult train_steps(const TrainingRun& run, size_t num_steps = 4) {
  std::vector<TokenBatch> batches;
  for (size_t i = 0; i < num_steps; ++i) batches.push_back(random_batch(run, i));
  return train(run, batches);
}

void expect_same_bits(const TrainingResult& a, const TrainingResult& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.grad_norms, b.grad_norms);
  EXPECT_EQ(a.persistent, b.persistent);
}

// Recorded or not, and against the CPU.
void expect_trains(const TrainingRun& run) {
  const TrainingResult recorded = train_steps(on_device(run, true));
  expect_same_bits(recorded, train_steps(on_device(run, false)));
  TrainingRun on_cpu = on_device(run, false);
  on_cpu.runner.make_backend = {};
  EXPECT_LT(relative_difference(recorded, train_steps(on_cpu)), kTolerance);
}

TEST(CudaTraining, OneRank) { expect_trains(tiny_run()); }

TEST(CudaTraining, Accumulates) {
  TrainingRun run = tiny_run();
  run.accumulation_steps = 2;
  expect_trains(run);
}

TEST(CudaTraining, ShardedOverTwoRanks) {
  TrainingRun run = tiny_run();
  run.mesh = {{2, 1, 1}};
  run.optimizer.zero_stage = 3;
  expect_trains(run);
}

TEST(CudaTraining, TensorParallel) {
  TrainingRun run = tiny_run();
  run.mesh = {{1, 1, 2}};
  expect_trains(run);
}

TEST(CudaTraining, Experts) { expect_trains(experts_run()); }

TEST(CudaTraining, ExpertsOfTwoRanks) {
  TrainingRun run = experts_run();
  run.mesh = {{1, 2, 1}};
  expect_trains(run);
}

}  // namespace
}  // namespace caravan
