// Exact resume, by the real program: from every step, over the border of an epoch, with
// accumulation, in the layout that saved.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "checkpoint/directory.h"
#include "tests/e2e/caravan_process.h"
#include "tests/e2e/run_record.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr int kSteps = 20;

class ExactResume : public testing::Test {
 protected:
  // Trains kSteps with a checkpoint at each, then from each of them again.
  void expect_exact(const std::string& options, int num_ranks, const std::vector<int>& steps) {
    const std::string common = options + " train.max_steps=" + std::to_string(kSteps) +
                               " checkpoint.save_steps=1 checkpoint.save_total_limit=100";
    fs::remove_all(bench_.path("whole"));
    train("whole", common, num_ranks);
    const Manifest last = manifest_of(bench_.path("whole"), kSteps);
    const std::map<int64_t, std::string> lines = step_lines(bench_.path("whole"));
    ASSERT_EQ(lines.size(), size_t{kSteps});
    for (const int step : steps) {
      const std::string run = bench_.path("again");
      copy_checkpoint(bench_.path("whole"), run, step);
      train("again", common, num_ranks);
      EXPECT_TRUE(manifest_of(run, kSteps) == last) << "from step " << step;
      std::map<int64_t, std::string> rest = lines;
      rest.erase(rest.begin(), rest.upper_bound(step));
      EXPECT_EQ(step_lines(run), rest) << "from step " << step;
    }
  }

  void train(const std::string& run, const std::string& options, int num_ranks) {
    const ProcessResult result = bench_.train(run, options, num_ranks);
    ASSERT_EQ(result.exit_code, 0) << result.output;
  }

  Workbench bench_;
};

std::vector<int> all_steps() {
  std::vector<int> steps;
  for (int step = 1; step < kSteps; ++step) steps.push_back(step);
  return steps;
}

// Four micro-batches a step, in the middle of the first epoch.
TEST_F(ExactResume, FromEveryStepWithAccumulation) { expect_exact("", 0, all_steps()); }

// 16 sequences a step of 191: the second epoch begins within step 12.
TEST_F(ExactResume, FromEveryStepOverEpochs) {
  expect_exact(
      "data.sequence_len=64 train.micro_batch_size=16 train.global_batch_size=16 "
      "optimizer.lr_scheduler_type=cosine",
      0, all_steps());
}

TEST_F(ExactResume, OnRanksWithShardedState) {
  expect_exact("parallel.zero=1", 2, {1, 7, 19});
  expect_exact("parallel.zero=2", 4, {10});
}

TEST_F(ExactResume, ChangesThatBreakItNeedAWord) {
  train("changed", "train.max_steps=4 optimizer.lr_scheduler_type=cosine", 0);
  const std::string longer = "train.max_steps=6 optimizer.lr_scheduler_type=cosine";
  // The run was over: a longer one is no other one.
  train("changed", longer, 0);
  train("stopped", "train.max_steps=20 optimizer.lr_scheduler_type=cosine checkpoint.save_steps=2",
        0);
  fs::remove_all(bench_.path("stopped") + "/checkpoints/" + step_folder_name(20));
  const std::string other = "train.max_steps=30 optimizer.lr_scheduler_type=cosine";
  const ProcessResult refused = bench_.train("stopped", other);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.output.find("train.max_steps was 20"), std::string::npos) << refused.output;
  train("stopped", other + " --allow-config-change", 0);
}

// One bit of the newest checkpoint's tensors: the one before it is what training goes on from.
TEST_F(ExactResume, DamagedNewestIsPassedOver) {
  const std::string options = "train.max_steps=6 checkpoint.save_steps=2";
  train("whole", options, 2);
  const std::string run = bench_.path("whole");
  const Manifest last = manifest_of(run, 6);
  const std::string folder = run + "/checkpoints/" + step_folder_name(6) + "/";
  const ShardRecord& shard = last.tensors[3].shards[1];
  std::fstream file(folder + shard.file, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(shard.offset_bytes);
  const int byte = file.get();
  file.seekp(shard.offset_bytes);
  file.put(static_cast<char>(byte ^ 4));
  file.close();
  const ProcessResult result = bench_.train("whole", options, 2);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("'" + last.tensors[3].name + "' is damaged"), std::string::npos)
      << result.output;
  EXPECT_NE(result.output.find("resuming from " + run + "/checkpoints/" + step_folder_name(4)),
            std::string::npos)
      << result.output;
  EXPECT_TRUE(manifest_of(run, 6) == last);  // trained again, the same bits, in its place
}

}  // namespace
}  // namespace caravan
