// Steps whose loss or gradient is not finite: the update is skipped on all ranks and counted, and
// training goes on, also over a resume; a run that does nothing else any more ends with a word.
// Spikes of the loss are marked.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/directory.h"
#include "checkpoint/reader.h"
#include "tests/e2e/caravan_process.h"
#include "tests/e2e/run_record.h"
#include "tests/support/text.h"

namespace caravan {
namespace {

constexpr int kSick = 4;  // the step
constexpr int kSteps = 7;

class SickSteps : public testing::Test {
 protected:
  std::string run(const std::string& name) const { return bench_.path(name); }

  // The fault strikes the last rank in the first of several micro-batches.
  static std::string options(const std::string& kind, const std::string& layout, int num_ranks,
                             int max_steps = kSteps) {
    const int rank = num_ranks == 0 ? 0 : num_ranks - 1;
    return layout + " train.max_steps=" + std::to_string(max_steps) +
           " checkpoint.save_steps=1 checkpoint.save_total_limit=100 --fault " + kind + "@" +
           std::to_string(kSick) + ":" + std::to_string(rank);
  }

  // After a sick step only the last step of a run is saved: "sick" is the run that ends with it.
  std::string run_with(int step) const { return run(step == kSick ? "sick" : "whole"); }

  void expect_update_skipped() const {
    EXPECT_FALSE(std::filesystem::exists(run("whole") + "/checkpoints/" + step_folder_name(kSick)));
    const auto tensors = [&](int step) { return manifest_of(run_with(step), step).tensors; };
    EXPECT_TRUE(tensors(kSick) == tensors(kSick - 1)) << "the sick step changed something";
    EXPECT_FALSE(tensors(kSick - 1) == tensors(kSick - 2)) << "the test sees no change at all";
    EXPECT_FALSE(tensors(kSick + 1) == tensors(kSick)) << "training does not go on";
    const auto counter = [&](int step, const char* key) {
      return manifest_of(run_with(step), step).header.counters.at(key);
    };
    EXPECT_EQ(counter(kSick - 1, "skipped_steps"), 0);
    EXPECT_EQ(counter(kSick, "skipped_steps"), 1);
    EXPECT_EQ(counter(kSick, "skipped_in_row"), 1);
    EXPECT_EQ(counter(kSteps, "skipped_steps"), 1);
    EXPECT_EQ(counter(kSteps, "skipped_in_row"), 0);
  }

  // `field` of the metrics is what was not finite.
  void expect_counted(const std::string& name, const std::string& output,
                      const std::string& field) const {
    EXPECT_EQ(count(output, "warning: loss "), 1u) << output;
    EXPECT_EQ(count(output, " at step 4: the update was skipped\n"), 1u) << output;
    EXPECT_EQ(count(output, " | skip 1\n"), size_t{kSteps - kSick + 1}) << output;
    EXPECT_EQ(count(output, "| steps skipped "), 1u) << output;
    for (const auto& [step, text] : step_lines(run(name))) {
      const nlohmann::json line = nlohmann::json::parse(text);
      EXPECT_EQ(line.value("skipped", 0), step < kSick ? 0 : 1) << text;
      for (const std::string each : {"loss", "grad_norm"}) {
        EXPECT_EQ(line.at(each).is_null(), step == kSick && each == field) << text;
      }
    }
  }

  // From before the sick step, which then comes again, and from the checkpoint of that step.
  void expect_exact_resume(const std::string& given, int num_ranks) {
    const auto lines = step_lines(run("whole"));
    for (const int step : {kSick - 1, kSick}) {
      copy_checkpoint(run_with(step), run("again"), step);
      const ProcessResult again = bench_.train("again", given, num_ranks);
      ASSERT_EQ(again.exit_code, 0) << again.output;
      EXPECT_TRUE(manifest_of(run("again"), kSteps) == manifest_of(run("whole"), kSteps))
          << "from step " << step;
      auto rest = lines;
      rest.erase(rest.begin(), rest.upper_bound(step));
      EXPECT_EQ(step_lines(run("again")), rest) << "from step " << step;
    }
  }

  void expect_survived(const std::string& layout, int num_ranks) {
    for (const std::string kind : {"nan", "nan-gradient"}) {
      SCOPED_TRACE(kind);
      std::filesystem::remove_all(run("whole"));
      std::filesystem::remove_all(run("sick"));
      const std::string given = options(kind, layout, num_ranks);
      const ProcessResult sick =
          bench_.train("sick", options(kind, layout, num_ranks, kSick), num_ranks);
      ASSERT_EQ(sick.exit_code, 0) << sick.output;
      const ProcessResult whole = bench_.train("whole", given, num_ranks);
      ASSERT_EQ(whole.exit_code, 0) << whole.output;
      expect_update_skipped();
      expect_counted("whole", whole.output, kind == "nan" ? "loss" : "grad_norm");
      expect_exact_resume(given, num_ranks);
    }
  }

  // With save_steps=1, so that the newest checkpoint is that of the step before the sick ones.
  void expect_divergence(int max_skipped, int num_ranks) {
    const ProcessResult result =
        bench_.train("diverged",
                     "optimizer.learning_rate=1e30 checkpoint.save_steps=1 train.max_steps=100 "
                     "train.max_skipped=" +
                         std::to_string(max_skipped),
                     num_ranks);
    EXPECT_EQ(result.exit_code, 5) << result.output;
    const auto lines = step_lines(run("diverged"));
    const int64_t last = lines.rbegin()->first;
    EXPECT_EQ(nlohmann::json::parse(lines.rbegin()->second).value("skipped", 0), max_skipped + 1);
    const LatestCheckpoint latest = find_latest(run("diverged") + "/checkpoints");
    EXPECT_EQ(latest.step, last - 1 - max_skipped);
    const nlohmann::json record =
        nlohmann::json::parse(std::ifstream(run("diverged") + "/error.json"));
    EXPECT_EQ(record.at("exit_code"), 5);
    EXPECT_EQ(record.at("step"), last);
    const auto message = record.at("message").get<std::string>();
    EXPECT_TRUE(message.ends_with("go on from " + latest.path)) << message;
    EXPECT_EQ(count(result.output, "caravan: error: " + message + "\n"), 1u) << result.output;
    EXPECT_EQ(count(result.output, "error: "), 1u) << result.output;
  }

  // A one-dimensional tensor of a checkpoint.
  std::vector<float> read_vector(const std::string& name, int step, const std::string& tensor) {
    CheckpointReader reader(run(name) + "/checkpoints/" + step_folder_name(step));
    std::vector<float> values(32);
    reader.read({tensor, DType::f32, {32}, {0}, {32}, values.data()});
    return values;
  }

  Workbench bench_;
};

TEST_F(SickSteps, AreSkippedInOneProcess) { expect_survived("parallel.zero=0", 0); }

TEST_F(SickSteps, AreSkippedOnTwoRanks) { expect_survived("parallel.zero=1", 2); }

TEST_F(SickSteps, AreSkippedOnFourRanks) {
  expect_survived("parallel.zero=2 train.micro_batch_size=1", 4);
}

TEST_F(SickSteps, AreSkippedWithoutSharding) { expect_survived("parallel.zero=0", 2); }

// Adam's first update is as long as the learning rate wherever there is a gradient; taken for the
// second one, its bias corrections would make it 0.74 times as long.
TEST_F(SickSteps, AdamCountsUpdates) {
  for (const char* part : {"train.max_steps=1 --fault nan@1:0", "train.max_steps=2"}) {
    const ProcessResult result =
        bench_.train("adam", std::string("optimizer.weight_decay=0 ") + part);
    ASSERT_EQ(result.exit_code, 0) << result.output;
  }
  const std::vector<float> before = read_vector("adam", 1, "model.norm.weight");
  const std::vector<float> after = read_vector("adam", 2, "model.norm.weight");
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_NEAR(std::abs(after[i] - before[i]), 3e-3, 3e-5) << "element " << i;
  }
}

TEST_F(SickSteps, TooManyInARowEndTheRun) {
  expect_divergence(2, 0);
  std::filesystem::remove_all(run("diverged"));
  expect_divergence(3, 2);
}

TEST_F(SickSteps, NoneAllowedEndsAtTheFirst) {
  expect_divergence(0, 0);
  std::filesystem::remove_all(run("diverged"));
  expect_divergence(0, 2);
}

// After as many calm steps as the statistics need, a rate that throws the weights far off.
TEST_F(SickSteps, ASpikeIsMarked) {
  const ProcessResult calm = bench_.train("spike", "train.max_steps=140");
  ASSERT_EQ(calm.exit_code, 0) << calm.output;
  const ProcessResult thrown =
      bench_.train("spike",
                   "train.max_steps=145 optimizer.learning_rate=1 log.logging_steps=1000 "
                   "--allow-config-change");
  ASSERT_EQ(thrown.exit_code, 0) << thrown.output;
  EXPECT_GT(count(thrown.output, " | loss spike +"), 0u) << thrown.output;
  size_t num_marked = 0;
  for (const auto& [step, text] : step_lines(run("spike"))) {
    const nlohmann::json line = nlohmann::json::parse(text);
    const double z = std::max(line.value("loss_z", 0.0), line.value("grad_norm_z", 0.0));
    EXPECT_EQ(line.value("spike", false), z >= 5) << text;
    num_marked += step > 140 && line.value("loss_z", 0.0) >= 5;
  }
  EXPECT_EQ(num_marked, count(thrown.output, " | loss spike +"));
}

}  // namespace
}  // namespace caravan
