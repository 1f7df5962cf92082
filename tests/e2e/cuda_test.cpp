// The program on a CUDA device: the same run as on the CPU, whatever is switched on. On a machine
// without one, the same program with an emulated device (tests/cuda_emulator) stands in for it.
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/directory.h"
#include "runtime/cuda/cuda.h"
#include "tests/e2e/caravan_process.h"

namespace caravan {
namespace {

class Cuda : public testing::Test {
 protected:
  // Trains on the device; num_ranks 0: without mpirun.
  std::string train(const std::string& run, const std::string& overrides, int num_ranks = 0) {
    const bool has_device = examine_cuda().problem.empty();
    const char* program = has_device ? "caravan " : "caravan_emulated ";
    const ProcessResult result = run_program(
        program + bench_.train_command(run, "runtime.device=cuda " + kModel + overrides),
        num_ranks);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output;
  }
  std::string train_on_cpu(const std::string& run, const std::string& overrides) {
    const ProcessResult result = bench_.train(run, "runtime.device=cpu " + kModel + overrides);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output;
  }

  std::string resume_from(const std::string& run, int step) const {
    return " checkpoint.resume_from_checkpoint=" + bench_.path(run) + "/checkpoints/" +
           step_folder_name(step);
  }

  void expect_close(const std::string& run, const std::string& expected, double tolerance) const {
    const std::vector<double> losses = bench_.losses(run), others = bench_.losses(expected);
    ASSERT_FALSE(losses.empty());
    ASSERT_EQ(losses.size(), others.size());
    for (size_t i = 0; i < losses.size(); ++i) {
      EXPECT_NEAR(losses[i] / others[i], 1, tolerance) << "step " << i + 1;
    }
  }

  // Small, as the emulated device takes its time.
  const std::string kModel =
      "model.hidden_size=16 model.intermediate_size=32 model.num_attention_heads=2 "
      "model.num_key_value_heads=1 data.sequence_len=16 train.micro_batch_size=1 "
      "train.global_batch_size=2 ";
  Workbench bench_;
};

TEST_F(Cuda, FollowsTheLossesOfTheCpu) {
  const std::string output = train("cuda", "train.max_steps=50");
  train_on_cpu("cpu", "train.max_steps=50");
  expect_close("cuda", "cpu", 1e-4);
  for (const char* row : {"cuda:0, ", "float32", "free on the device"}) {
    EXPECT_NE(output.find(row), std::string::npos) << row << "\n" << output;
  }
}

TEST_F(Cuda, RecordedStepsHaveTheSameBits) {
  const std::string options = "train.max_steps=6 runtime.deterministic=true runtime.cuda_graph=";
  train("recorded", options + "true");
  train("not", options + "false");
  EXPECT_EQ(bench_.losses("recorded"), bench_.losses("not"));
  EXPECT_EQ(bench_.losses("recorded").size(), 6u);
}

TEST_F(Cuda, CheckpointsGoToTheCpuAndBack) {
  train("all_cuda", "train.max_steps=8 checkpoint.save_steps=4");
  train_on_cpu("all_cpu", "train.max_steps=8 checkpoint.save_steps=4");
  train("to_cuda", "train.max_steps=8" + resume_from("all_cpu", 4));
  train_on_cpu("to_cpu", "train.max_steps=8" + resume_from("all_cuda", 4));
  for (const auto& [run, whole] : {std::pair("to_cuda", "all_cpu"), {"to_cpu", "all_cuda"}}) {
    const std::vector<double> losses = bench_.losses(run), others = bench_.losses(whole);
    ASSERT_EQ(losses.size(), 4u);
    for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(losses[i] / others[4 + i], 1, 1e-4) << run;
  }
  const ProcessResult verified = run_caravan("ckpt verify " + bench_.path("all_cuda"));
  EXPECT_EQ(verified.exit_code, 0) << verified.output;
}

// What was saved is what a run that goes on reads: the same bits as without a stop.
TEST_F(Cuda, ResumesBitForBit) {
  train("whole", "train.max_steps=6 runtime.deterministic=true");
  train("parts", "train.max_steps=6 runtime.deterministic=true checkpoint.save_steps=3");
  train("resumed", "train.max_steps=6 runtime.deterministic=true" + resume_from("parts", 3));
  const std::vector<double> whole = bench_.losses("whole");
  EXPECT_EQ(bench_.losses("parts"), whole);
  EXPECT_EQ(bench_.losses("resumed"), std::vector<double>(whole.begin() + 3, whole.end()));
}

TEST_F(Cuda, TwoRanksThatShareADevice) {
  if (examine_cuda().devices.size() > 1) GTEST_SKIP() << "skipped: each rank has its own";
  train("one", "train.max_steps=6");
  const std::string output = train("two", "train.max_steps=6 parallel.zero=3", 2);
  expect_close("two", "one", 1e-4);
  EXPECT_NE(output.find("through the host (several ranks share a GPU)"), std::string::npos)
      << output;
}

TEST_F(Cuda, Bfloat16EndsNearFloat32) {
  train("exact", "train.max_steps=8");
  const std::string output = train("mixed", "train.max_steps=8 runtime.dtype=bfloat16");
  EXPECT_NEAR(bench_.losses("mixed").back() / bench_.losses("exact").back(), 1, 0.01);
  EXPECT_NE(output.find("bfloat16"), std::string::npos) << output;
}

TEST_F(Cuda, TooLittleMemoryIsOneLineBeforeTheFirstStep) {
  const bool has_device = examine_cuda().problem.empty();
  const ProcessResult result = run_program(
      std::string(has_device ? "caravan " : "caravan_emulated ") +
          bench_.train_command("none", "runtime.device=cuda runtime.memory_limit=64KiB " + kModel),
      0);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.output.find("the memory limit is 64.0 KiB"), std::string::npos) << result.output;
}

}  // namespace
}  // namespace caravan
