// Which steps count: last occurrences, up to the last commit, written since a certain byte.
#include "launch/effective_time.h"

#include <fstream>

#include "launch/metrics.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

class EffectiveTime : public testing::Test {
 protected:
  void step(int64_t step, double step_ms) {
    StepMetrics metrics;
    metrics.step = step;
    metrics.step_ms = step_ms;
    MetricsFile(path_).step(metrics);
  }
  void resume(int64_t step) { MetricsFile(path_).resume(step); }
  void append(const std::string& text) { std::ofstream(path_, std::ios::app) << text; }

  TemporaryFolder folder_;
  std::string path_ = folder_ / "metrics.jsonl";
};

TEST_F(EffectiveTime, SumsSteps) {
  step(1, 1000);
  step(2, 500);
  MetricsFile(path_).evaluation(2, 3.5);
  const StepTimes times = read_step_times(path_, 0);
  EXPECT_EQ(times.num_kept, 2);
  EXPECT_DOUBLE_EQ(times.kept_seconds, 1.5);
  EXPECT_DOUBLE_EQ(times.lost_seconds, 0);
  EXPECT_EQ(times.last_step, 2);
}

TEST_F(EffectiveTime, AResumeReplacesWhatLiesBeyondIt) {
  for (int64_t i = 1; i <= 4; ++i) step(i, 1000);
  resume(2);
  step(3, 250);
  const StepTimes times = read_step_times(path_, 0);
  EXPECT_EQ(times.num_kept, 3);
  EXPECT_DOUBLE_EQ(times.kept_seconds, 2.25);
  EXPECT_DOUBLE_EQ(times.lost_seconds, 2);
  EXPECT_EQ(times.last_step, 3);
}

// A run that died before its first checkpoint starts anew, without a line that says so.
TEST_F(EffectiveTime, StepsFromTheStartReplaceAllOthers) {
  for (int64_t i = 1; i <= 3; ++i) step(i, 1000);
  step(1, 500);
  const StepTimes times = read_step_times(path_, 0);
  EXPECT_EQ(times.num_kept, 1);
  EXPECT_DOUBLE_EQ(times.kept_seconds, 0.5);
  EXPECT_DOUBLE_EQ(times.lost_seconds, 3);
}

TEST_F(EffectiveTime, StepsThatWereNeverSavedAreLost) {
  for (int64_t i = 1; i <= 5; ++i) step(i, 1000);
  const StepTimes times = read_step_times(path_, 0, 3);
  EXPECT_EQ(times.num_kept, 3);
  EXPECT_DOUBLE_EQ(times.lost_seconds, 2);
  EXPECT_EQ(times.last_step, 5);
}

TEST_F(EffectiveTime, OnlyNewLinesCount) {
  for (int64_t i = 1; i <= 4; ++i) step(i, 1000);
  const int64_t begin = metrics_bytes(path_);
  EXPECT_EQ(read_step_times(path_, begin).last_step, std::nullopt);
  resume(2);
  step(3, 250);
  const StepTimes times = read_step_times(path_, begin);
  EXPECT_EQ(times.num_kept, 1);
  EXPECT_DOUBLE_EQ(times.kept_seconds, 0.25);
}

TEST_F(EffectiveTime, TornLinesArePassedOver) {
  step(1, 1000);
  append(R"({"step":2,"step_ms":10)");
  EXPECT_EQ(read_step_times(path_, 0).last_step, 1);
  resume(1);  // begins a new line
  step(2, 500);
  append("\n[]\n3\n{\"step\":\"x\"}\n{\"step\":9,\"step_ms\":null}\n");
  EXPECT_DOUBLE_EQ(read_step_times(path_, 0).kept_seconds, 1.5);
}

TEST_F(EffectiveTime, AMissingFileHasNoSteps) {
  EXPECT_EQ(metrics_bytes(path_), 0);
  EXPECT_EQ(read_step_times(path_, 0).num_kept, 0);
  EXPECT_EQ(read_step_times(path_, 100, 5).last_step, std::nullopt);
}

TEST_F(EffectiveTime, AFileThatWasReplacedIsNew) {
  step(1, 1000);
  EXPECT_EQ(read_step_times(path_, 100000).num_kept, 1);
}

TEST_F(EffectiveTime, IsToldInOneLine) {
  EXPECT_EQ(describe_effective_time({.num_kept = 9, .kept_seconds = 280.2}, 300),
            "93.4 % (280.2 s of training steps that were kept in 300.0 s)");
  EXPECT_EQ(describe_effective_time({}, 0),
            "0.0 % (0.0 s of training steps that were kept in 0.0 s)");
}

}  // namespace
}  // namespace caravan
