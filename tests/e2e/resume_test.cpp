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

// They are no part of the checkpoint of a run that had none.
TEST_F(ExactResume, BiasesOfRoutersMayJoinLater) {
  const std::string experts = "model.num_local_experts=4 optimizer.lr_scheduler_type=constant ";
  train("balanced", experts + "train.max_steps=2 moe.balance=none", 0);
  const std::string biased = experts + "train.max_steps=4 moe.balance=bias";
  const ProcessResult refused = bench_.train("balanced", biased);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.output.find("moe.balance was none"), std::string::npos) << refused.output;
  train("balanced", biased + " --allow-config-change", 2);
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

// The same paths, other text behind them: no key has changed, the run would be another.
TEST_F(ExactResume, OtherDataBehindTheSamePathNeedsAWord) {
  train("fed", "train.max_steps=4", 2);
  fs::remove_all(bench_.path("data"));
  fs::remove(bench_.path("text") + "/document-7.txt");
  const std::string rebuild = "data build " + bench_.path("text") + " --output " +
                              bench_.path("data") + " --vocab-size 300 --validation-fraction 0.1";
  ASSERT_EQ(run_caravan(rebuild).exit_code, 0);
  const ProcessResult refused = bench_.train("fed", "train.max_steps=6", 2);
  EXPECT_EQ(refused.exit_code, 3) << refused.output;
  EXPECT_NE(refused.output.find("data.train held other data"), std::string::npos) << refused.output;
  train("fed", "train.max_steps=6 --allow-config-change", 2);
  train("fed", "train.max_steps=8", 2);  // the new data is now that of the run
}

// Rates that no step of this life will see are not compared one by one.
TEST_F(ExactResume, EndlessRunsMayChangeTheirEnd) {
  const std::string constant = "optimizer.lr_scheduler_type=constant checkpoint.save_steps=2 ";
  const std::string stops = " --fault error@6:0";
  const ProcessResult first =
      bench_.train("endless", constant + "train.max_steps=1000000000000" + stops);
  ASSERT_EQ(first.exit_code, 1) << first.output;
  const ProcessResult second =
      run_caravan(bench_.train_command(
                      "endless", constant + "train.max_steps=2000000000000" + " --fault error@8:0"),
                  0, "timeout 60");
  EXPECT_EQ(second.exit_code, 1) << second.output;
  EXPECT_NE(second.output.find("resuming from"), std::string::npos) << second.output;
}

// What supervise and a batch script do: the same command again, after some steps in a new folder.
TEST_F(ExactResume, TheSameCommandGoesOnFromWhatItHasDoneSince) {
  train("first", "train.max_steps=4", 0);
  const std::string start = bench_.path("first") + "/checkpoints/" + step_folder_name(4);
  const std::string again = "checkpoint.save_steps=2 checkpoint.resume_from_checkpoint=" + start;
  train("second", again + " train.max_steps=6", 0);
  const ProcessResult result = bench_.train("second", again + " train.max_steps=8");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("resuming from " + bench_.path("second") + "/checkpoints/" +
                               step_folder_name(6)),
            std::string::npos)
      << result.output;
  const ProcessResult back =
      bench_.train("second", "checkpoint.resume_from_checkpoint=" + bench_.path("second") +
                                 "/checkpoints/" + step_folder_name(6));
  EXPECT_EQ(back.exit_code, 2) << back.output;  // older than its own newest
  const ProcessResult none = bench_.train("third", "checkpoint.resume_from_checkpoint=latest");
  EXPECT_EQ(none.exit_code, 2) << none.output;
  EXPECT_NE(none.output.find("'latest', which is no checkpoint"), std::string::npos) << none.output;
}

}  // namespace
}  // namespace caravan
