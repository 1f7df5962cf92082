#include "launch/ckpt_command.h"

#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "launch/run_lock.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

constexpr int64_t kNow = 1700000000 + 3 * 3600;  // three hours after what header_of_step() says

std::string listing(const std::string& folder) {
  std::ostringstream out;
  list_checkpoints(folder, kNow, out);
  return out.str();
}

class CkptCommand : public testing::Test {
 protected:
  CkptCommand() {
    save_model(run_.path() + "/checkpoints", small_model(), 1000, 2);
    newest_ = save_model(run_.path() + "/checkpoints", small_model(), 2000, 2).path;
  }
  TemporaryFolder run_;
  std::string newest_;
};

TEST_F(CkptCommand, ListsRunsFoldersAndSingleCheckpoints) {
  const std::string text = listing(run_.path());
  for (const char* part : {"1,000", "4,096,000", "2.5000", "3h", "dp=2 zero=1", "step-00002000"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_LT(text.find("step-00001000"), text.find("step-00002000"));
  EXPECT_EQ(listing(run_.path() + "/checkpoints/"), text);
  const std::string one = listing(newest_);
  EXPECT_NE(one.find("step-00002000"), std::string::npos) << one;
  EXPECT_EQ(one.find("step-00001000"), std::string::npos) << one;
}

TEST_F(CkptCommand, NamesUnusableOnesAndListsTheOthers) {
  std::filesystem::remove(newest_ + "/rank-00001-of-00002.h5");
  const std::string text = listing(run_.path());
  EXPECT_NE(text.find("unusable: " + newest_), std::string::npos) << text;
  EXPECT_NE(text.find("1,000"), std::string::npos) << text;
}

TEST_F(CkptCommand, ShowsHeaderAndTensors) {
  std::ostringstream brief, full;
  show_checkpoint(newest_, false, brief);
  show_checkpoint(newest_, true, full);
  for (const char* part : {"8,192,000", "run-1", "c0ffee", "2023-11-14 22:13:20 UTC", "loss"}) {
    EXPECT_NE(brief.str().find(part), std::string::npos) << part << "\n" << brief.str();
  }
  EXPECT_EQ(brief.str().find("layers.0.attention.wq"), std::string::npos);
  EXPECT_NE(full.str().find("layers.0.attention.wq"), std::string::npos) << full.str();
  EXPECT_NE(full.str().find("[24,10]"), std::string::npos) << full.str();
}

std::string verify_output(const std::string& folder, std::string* error = nullptr) {
  std::ostringstream out;
  const std::string message = error_of([&] { verify_checkpoints(folder, out); });
  if (error != nullptr) *error = message;
  return out.str();
}

TEST_F(CkptCommand, VerifiesOneOrAllAndCountsTheDamagedOnes) {
  EXPECT_EQ(verify_output(newest_).find("ok: 1 checkpoint, 7 tensors, "), 0u);
  EXPECT_EQ(verify_output(run_.path()).find("ok: 2 checkpoints, 14 tensors, "), 0u);
  const std::string file = newest_ + "/rank-00000-of-00002.h5";
  std::string bytes = read_bytes(file);
  for (const TensorRecord& tensor : read_committed(newest_).tensors) {
    const ShardRecord& shard = tensor.shards.front();
    if (file.ends_with(shard.file)) bytes[static_cast<size_t>(shard.offset_bytes)] ^= 1;
  }
  write_bytes(file, bytes);
  std::string error;
  const std::string text = verify_output(run_.path(), &error);
  EXPECT_EQ(error, run_.path() + ": 1 of 2 checkpoints damaged");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 7) << text;
  EXPECT_NE(text.find("tensor 'positions' [0:6] is damaged"), std::string::npos) << text;
  EXPECT_EQ(text.find("ok:"), std::string::npos);
}

// Deletes a folder as soon as something is said about another.
class DeletesWhenSpokenTo : public std::stringbuf {
 public:
  explicit DeletesWhenSpokenTo(std::string folder) : folder_(std::move(folder)) {}
  int sync() override {
    std::filesystem::remove_all(folder_);
    return 0;
  }

 private:
  std::string folder_;
};

TEST_F(CkptCommand, WhatARunDeletesMeanwhileIsNotDamaged) {
  std::filesystem::remove(run_.path() + "/checkpoints/step-00001000/rank-00001-of-00002.h5");
  DeletesWhenSpokenTo buffer(newest_);
  std::ostream out(&buffer);
  const std::string error = error_of([&] { verify_checkpoints(run_.path(), out); });
  EXPECT_EQ(error, run_.path() + ": 1 of 1 checkpoint damaged");
  EXPECT_NE(buffer.str().find(newest_ + ": deleted while it was read"), std::string::npos)
      << buffer.str();
}

TEST_F(CkptCommand, VerifyingNothingIsNoSuccess) {
  const TemporaryFolder empty;
  std::string error;
  EXPECT_EQ(verify_output(empty.path(), &error), "");
  EXPECT_NE(error.find("no checkpoints to verify"), std::string::npos) << error;
}

std::string diff_output(const std::string& a, const std::string& b) {
  std::ostringstream out;
  diff_checkpoints(a, b, out);
  return out.str();
}

TEST_F(CkptCommand, DiffSaysIdenticalWhateverTheLayout) {
  const TemporaryFolder other;
  const std::string again = save_model(other.path(), small_model(), 2000, 3).path;
  const std::string text = diff_output(newest_, again);
  EXPECT_NE(text.find("identical: all 7 tensors"), std::string::npos) << text;
  EXPECT_NE(text.find("header\n  no difference\n"), std::string::npos) << text;
}

TEST_F(CkptCommand, DiffNamesEveryDifference) {
  const TemporaryFolder other;
  std::vector<TestTensor> model = small_model();
  model[0].shape = {37, 13};
  model[1].name = "layers.0.attention.wk";
  model[5].dtype = DType::i32;
  const std::string text = diff_output(newest_, save_model(other.path(), model, 3000, 1).path);
  for (const char* part :
       {"step                                 2,000 -> 3,000", "counters.sample", "14000 -> 21000",
        "f32[37,12] -> f32[37,13]", "layers.0.attention.wk only in B: bf16[24,10]",
        "layers.0.attention.wq only in A", "f32[12] -> i32[12]",
        "positions             11 of 11 elements differ, by at most",
        "different: 8 of 8 tensors"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  EXPECT_EQ(text.find("identical"), std::string::npos);
}

TEST_F(CkptCommand, DiffOfADamagedOneIsAnError) {
  const std::string file = newest_ + "/rank-00001-of-00002.h5";
  std::string bytes = read_bytes(file);
  bytes[static_cast<size_t>(read_committed(newest_).tensors.front().shards.back().offset_bytes)] ^=
      1;
  write_bytes(file, bytes);
  const std::string older = run_.path() + "/checkpoints/step-00001000";
  const std::string message = error_of([&] { diff_output(older, newest_); });
  EXPECT_NE(message.find("is damaged"), std::string::npos) << message;
}

std::string prune_output(const std::string& run, int64_t keep, bool dry_run = false) {
  std::ostringstream out;
  prune_checkpoints(run, keep, dry_run, out);
  return out.str();
}

std::vector<int64_t> steps_of(const std::string& run) {
  std::vector<int64_t> steps;
  for (const StepFolder& entry : list_step_folders(run + "/checkpoints")) {
    steps.push_back(entry.step);
  }
  return steps;
}

TEST_F(CkptCommand, PruneDeletesTheOldestByNumber) {
  const std::string folder = run_.path() + "/checkpoints";
  for (const int64_t step : {99999999, 100000000}) save_model(folder, {}, step, 1);
  const std::string leftover = folder + "/.tmp-step-00000500-run-9";
  std::filesystem::create_directory(leftover);
  write_bytes(leftover + "/rank-00000-of-00001.h5", std::string(1 << 20, 'x'));
  const std::string would = prune_output(run_.path(), 1, true);
  EXPECT_EQ(steps_of(run_.path()), (std::vector<int64_t>{1000, 2000, 99999999, 100000000}));
  EXPECT_TRUE(std::filesystem::exists(leftover));
  for (const char* part : {"would delete", "step-00001000 (", "step-99999999", "run-9 (1.0 MiB)",
                           "would be freed: 4 folders"}) {
    EXPECT_NE(would.find(part), std::string::npos) << part << "\n" << would;
  }
  EXPECT_EQ(would.find("step-100000000"), std::string::npos) << would;
  const std::string did = prune_output(run_.path(), 1);
  EXPECT_EQ(steps_of(run_.path()), std::vector<int64_t>{100000000});
  EXPECT_FALSE(std::filesystem::exists(leftover));
  EXPECT_NE(did.find("\nfreed: 4 folders"), std::string::npos) << did;
}

TEST_F(CkptCommand, PruneLeavesAlonePartsOfALivingRun) {
  const std::string leftover = run_.path() + "/checkpoints/.tmp-step-00003000-run-1";
  std::filesystem::create_directory(leftover);
  const RunLock trainer(run_.path());
  ASSERT_TRUE(trainer.is_held());
  const std::string text = prune_output(run_.path(), 1);
  EXPECT_TRUE(std::filesystem::exists(leftover));
  EXPECT_NE(text.find("kept 1 unfinished: a process trains in"), std::string::npos) << text;
  EXPECT_EQ(steps_of(run_.path()), std::vector<int64_t>{2000});
}

TEST_F(CkptCommand, PruneNeverTouchesTheNewestOrTheDamaged) {
  const std::string none = error_of([&] { prune_output(run_.path(), 0); }, ExitCode::config);
  EXPECT_NE(none.find("give at least 1"), std::string::npos) << none;
  const std::string no_run = error_of([&] { prune_output(newest_, 1); });
  EXPECT_NE(no_run.find("give the output_dir of a run"), std::string::npos) << no_run;
  write_bytes(newest_ + "/manifest.json", "{}");
  prune_output(run_.path(), 1);  // the newest that can be used is the older one
  EXPECT_EQ(steps_of(run_.path()), (std::vector<int64_t>{1000, 2000}));
}

TEST_F(CkptCommand, SubcommandsAndMistakes) {
  CLI::App app;
  add_ckpt_command(app);
  testing::internal::CaptureStdout();
  app.parse("ckpt show --tensors " + newest_);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("positions"), std::string::npos);
  const std::string missing = error_of([&] { app.parse("ckpt ls " + run_.path() + "/nope"); });
  EXPECT_NE(missing.find("/nope: no such folder"), std::string::npos) << missing;
  const std::string not_one = error_of([&] { app.parse("ckpt show " + run_.path()); });
  EXPECT_NE(not_one.find("not a checkpoint"), std::string::npos) << not_one;
}

}  // namespace
}  // namespace caravan::test
