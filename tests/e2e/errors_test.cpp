// The mistakes that users make first: one line, the place, the fix, the exit code; no rank stays.
#include <gtest/gtest.h>

#include <fstream>

#include "tests/e2e/caravan_process.h"

namespace caravan {
namespace {

class Errors : public testing::Test {
 protected:
  static void SetUpTestSuite() { bench_ = new Workbench; }
  static void TearDownTestSuite() {
    delete bench_;
    bench_ = nullptr;
  }

  // The only line that begins with "caravan: error:".
  static std::string error_line(const std::string& output) {
    constexpr char kPrefix[] = "caravan: error: ";
    const size_t begin = output.find(kPrefix);
    EXPECT_NE(begin, std::string::npos) << output;
    if (begin == std::string::npos) return "";
    EXPECT_EQ(output.find(kPrefix, begin + 1), std::string::npos) << "said twice: " << output;
    return output.substr(begin, output.find('\n', begin) - begin);
  }

  void expect_error(const std::string& overrides, int exit_code,
                    const std::vector<std::string>& parts, int num_ranks = 0) {
    const ProcessResult result = bench_->train("never", overrides, num_ranks);
    EXPECT_EQ(result.exit_code, exit_code) << result.output;
    const std::string line = error_line(result.output);
    for (const std::string& part : parts) {
      EXPECT_NE(line.find(part), std::string::npos) << "no '" << part << "' in: " << line;
    }
    EXPECT_EQ(result.output.find("step 1/"), std::string::npos) << "it began to train";
  }

  static inline Workbench* bench_ = nullptr;
};

TEST_F(Errors, MistypedKey) {
  expect_error("optimizer.learning_rat=1", 2,
               {"learning_rat", "optimizer", "did you mean 'learning_rate'"});
}

TEST_F(Errors, UnknownKeyInAFileHasItsPlace) {
  const std::string path = bench_->path("mistyped.yaml");
  std::ofstream(path) << "output_dir: x\nmodel: {hidden_siz: 4}\n";
  const ProcessResult result = run_caravan("train " + path);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.output.find("mistyped.yaml:2:"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("hidden_size"), std::string::npos) << result.output;
}

TEST_F(Errors, MissingConfiguration) {
  const ProcessResult result = run_caravan("train " + bench_->path("nowhere.yaml"));
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(error_line(result.output).find("nowhere.yaml"), std::string::npos) << result.output;
}

TEST_F(Errors, MissingData) {
  expect_error("data.train=" + bench_->path("nothing"), 3, {"nothing", "caravan data build"});
}

TEST_F(Errors, EmptyText) {
  std::filesystem::create_directory(bench_->path("empty"));
  const ProcessResult result =
      run_caravan("data build " + bench_->path("empty") + " --output " + bench_->path("out"));
  EXPECT_EQ(result.exit_code, 3) << result.output;
  EXPECT_NE(error_line(result.output).find("empty"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(bench_->path("out")));
}

TEST_F(Errors, BatchDoesNotDivide) {
  expect_error("train.global_batch_size=7", 2, {"7", "2", "global_batch_size"});
}

TEST_F(Errors, BatchDoesNotDivideByRanks) {
  expect_error("train.global_batch_size=6", 2, {"6", "2", "dp 2"}, 2);
}

TEST_F(Errors, HeadsDoNotDivide) {
  expect_error("model.num_key_value_heads=3", 2,
               {"num_attention_heads", "4", "num_key_value_heads", "3"});
}

TEST_F(Errors, LimitTooSmallShowsTheTable) {
  const ProcessResult result = bench_->train("limited", "runtime.memory_limit=1MiB");
  EXPECT_EQ(result.exit_code, 2) << result.output;
  for (const char* row : {"weights", "optimizer", "activations"}) {
    EXPECT_NE(result.output.find(row), std::string::npos) << result.output;
  }
  EXPECT_NE(error_line(result.output).find("limit"), std::string::npos);
}

TEST_F(Errors, OutputFolderNotWritable) {
  expect_error("output_dir=/dev/null/run", 2, {"/dev/null/run", "choose another"});
}

// What a finished run must be safe from.
class Resuming : public Errors {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(bench_->path("kept"));
    const ProcessResult first = bench_->train("kept", "train.max_steps=2 checkpoint.save_steps=1");
    ASSERT_EQ(first.exit_code, 0) << first.output;
  }

  void expect_refused(const std::string& overrides, int exit_code,
                      const std::vector<std::string>& parts) {
    const ProcessResult result = bench_->train("kept", "train.max_steps=4 " + overrides);
    EXPECT_EQ(result.exit_code, exit_code) << result.output;
    const std::string line = error_line(result.output);
    for (const std::string& part : parts) {
      EXPECT_NE(line.find(part), std::string::npos) << "no '" << part << "' in: " << line;
    }
    EXPECT_EQ(bench_->losses("kept").size(), 2u);
    std::ifstream config(bench_->path("kept") + "/config.yaml");
    const std::string text{std::istreambuf_iterator<char>(config), {}};
    EXPECT_NE(text.find("num_hidden_layers: 2"), std::string::npos) << text;
  }
};

TEST_F(Resuming, AnotherModelIsRefused) {
  expect_refused("model.num_hidden_layers=1", 4, {"num_hidden_layers was 2", "is 1 now"});
  expect_refused("model.num_attention_heads=8 model.num_key_value_heads=4", 4, {"another model"});
  expect_refused("model.rope_theta=5e5", 4, {"rope_theta"});
}

TEST_F(Resuming, AnotherRunNeedsAWord) {
  expect_refused("train.seed=4", 2, {"train.seed was 3", "--allow-config-change"});
  const ProcessResult allowed =
      bench_->train("kept", "train.max_steps=3 train.seed=4 --allow-config-change");
  EXPECT_EQ(allowed.exit_code, 0) << allowed.output;
  EXPECT_EQ(bench_->losses("kept").size(), 3u);
}

TEST_F(Resuming, AnOlderCheckpointIsNotMixedWithNewerOnes) {
  expect_refused(
      "checkpoint.resume_from_checkpoint=" + bench_->path("kept") + "/checkpoints/step-00000001", 2,
      {"step-00000001 is older", "choose another output_dir"});
}

TEST_F(Resuming, NothingReadableIsNoNewStart) {
  for (const char* step : {"step-00000001", "step-00000002"}) {
    std::filesystem::remove(bench_->path("kept") + "/checkpoints/" + step + "/manifest.json");
  }
  expect_refused("", 4, {"no checkpoint", "manifest.json"});
}

TEST_F(Resuming, TwoProcessesDoNotShareAFolder) {
  const std::string lock = "flock " + bench_->path("kept") + "/lock ";
  const ProcessResult second =
      run_caravan("train " + bench_->path("kept") + "/config.yaml train.max_steps=4", 0, lock);
  EXPECT_EQ(second.exit_code, 2) << second.output;
  EXPECT_NE(error_line(second.output).find("another process trains"), std::string::npos);
}

// Rank 0 finds the mistake while the others wait for it.
TEST_F(Errors, AllRanksAreGoneSoon) {
  const ProcessResult result = bench_->train("never", "output_dir=/dev/null/run", 2);
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_LT(result.seconds, 15);  // 5 s, and room for a machine that builds at the same time
  error_line(result.output);
}

}  // namespace
}  // namespace caravan
