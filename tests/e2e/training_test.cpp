// The program as a user runs it: learning, ranks, exactness, resuming, memory.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/e2e/caravan_process.h"

namespace caravan {
namespace {

// One set of tokens for all tests of this file.
class Training : public testing::Test {
 protected:
  static void SetUpTestSuite() { bench_ = new Workbench; }
  static void TearDownTestSuite() {
    delete bench_;
    bench_ = nullptr;
  }

  std::vector<double> train(const std::string& run, const std::string& overrides = "",
                            int num_ranks = 0) {
    const ProcessResult result = bench_->train(run, overrides, num_ranks);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return bench_->losses(run);
  }

  static void expect_close(const std::vector<double>& a, const std::vector<double>& b,
                           double relative) {
    ASSERT_EQ(a.size(), b.size());
    ASSERT_FALSE(a.empty());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a[i] / b[i], 1.0, relative) << "step " << i + 1;
    }
  }

  static inline Workbench* bench_ = nullptr;
};

TEST_F(Training, LossFallsOnRealTokens) {
  const std::vector<double> losses = train("learns", "train.max_steps=60");
  ASSERT_EQ(losses.size(), 60u);
  EXPECT_NEAR(losses.front(), std::log(300.0), 0.1);  // it knows nothing yet
  EXPECT_LT(losses.back(), 0.6 * losses.front());
}

TEST_F(Training, TwoRunsAreTheSameBits) { EXPECT_EQ(train("once"), train("twice")); }

TEST_F(Training, MemoryReuseChangesNoBit) {
  EXPECT_EQ(train("reuse"), train("keep", "runtime.keep_all=true"));
}

// Not even in the middle of a run.
TEST_F(Training, RecomputationChangesNoBit) {
  const std::vector<double> kept = train("kept", "runtime.recompute=none");
  EXPECT_EQ(kept, train("again", "runtime.recompute=auto"));
  train("switched", "runtime.recompute=none train.max_steps=3");
  EXPECT_EQ(kept, train("switched", "runtime.recompute=auto"));
}

TEST_F(Training, OverlapAndBucketsChangeNoBit) {
  const std::string zero = "parallel.zero=1";
  const std::vector<double> overlapped = train("overlap", zero, 2);
  EXPECT_EQ(overlapped, train("inline", zero + " runtime.overlap=false", 2));
  EXPECT_EQ(overlapped, train("buckets", zero + " parallel.bucket_bytes=1", 2));
}

TEST_F(Training, GatheringWeightsAheadChangesNoBit) {
  const std::string zero = "parallel.zero=3";
  const std::vector<double> ahead = train("ahead", zero, 2);
  EXPECT_EQ(ahead, train("in-place", zero + " runtime.overlap=false", 2));
  EXPECT_EQ(ahead, train("kept-all", zero + " runtime.keep_all=true", 2));
}

// The same global batch, whoever computes it, in as many micro-batches as it takes.
TEST_F(Training, AnyNumberOfRanksIsOneProcess) {
  const std::vector<double> alone = train("alone");
  expect_close(alone, train("two", "", 2), 1e-6);
  expect_close(alone, train("four", "", 4), 1e-6);
  expect_close(alone, train("two-zero1", "parallel.zero=1", 2), 1e-6);
  expect_close(alone, train("two-zero2", "parallel.zero=2", 2), 1e-6);
  expect_close(alone, train("whole-batch", "train.micro_batch_size=8"), 1e-6);
}

TEST_F(Training, StopAndResumeIsTheSameBits) {
  const std::vector<double> uninterrupted = train("through");
  std::vector<double> first = train("parts", "train.max_steps=3");
  const std::vector<double> both = train("parts");
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(both, uninterrupted);
}

TEST_F(Training, ResumesInAnotherLayout) {
  const std::vector<double> uninterrupted = train("one-layout");
  train("layouts", "train.max_steps=2 parallel.zero=1", 2);
  train("layouts", "train.max_steps=4 parallel.zero=2", 4);
  expect_close(train("layouts"), uninterrupted, 1e-6);
}

TEST_F(Training, RunAgainSaysThatItIsDone) {
  train("finished", "train.max_steps=2");
  const ProcessResult again = bench_->train("finished", "train.max_steps=2");
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_NE(again.output.find("done already"), std::string::npos) << again.output;
  EXPECT_EQ(bench_->losses("finished").size(), 2u);
}

// Large enough that the arena is most of what the process holds.
TEST_F(Training, HoldsWhatWasPlanned) {
  const std::string big =
      "model.hidden_size=256 model.intermediate_size=1024 model.num_hidden_layers=4 "
      "train.micro_batch_size=32 train.global_batch_size=32 data.sequence_len=128 "
      "train.max_steps=3";
  train("memory", big);
  const ProcessResult plan = run_caravan("plan " + bench_->path("memory") + "/config.yaml --json");
  ASSERT_EQ(plan.exit_code, 0) << plan.output;
  const double planned =
      nlohmann::json::parse(plan.output).at("memory").at("arena_bytes").get<double>();
  std::ifstream metrics(bench_->path("memory") + "/metrics.jsonl");
  double held = 0;
  for (std::string line; std::getline(metrics, line);) {
    const nlohmann::json object = nlohmann::json::parse(line);
    if (object.contains("mem_gib")) held = object.at("mem_gib").get<double>() * (1 << 30);
  }
  EXPECT_GT(planned, 200e6);
  EXPECT_GT(held, 0.95 * planned);  // touched before step 1
  EXPECT_LT(held, 1.05 * planned + 150e6);
}

}  // namespace
}  // namespace caravan
