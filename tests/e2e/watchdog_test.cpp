// Ranks that stop, hang, die or plan something else: named in one line and in error.json, all
// processes gone soon after.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/e2e/caravan_process.h"
#include "tests/e2e/processes.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr double kLimit = 3;

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Lost : public testing::Test {
 protected:
  static void SetUpTestSuite() { bench_ = new Workbench; }
  static void TearDownTestSuite() {
    delete bench_;
    bench_ = nullptr;
  }
  // A stopped process would outlive a test that failed.
  void TearDown() override { send_signal(processes(), SIGKILL); }

  static std::string run_name() {
    return testing::UnitTest::GetInstance()->current_test_info()->name();
  }
  static std::string argument() { return "output_dir=" + run_path(); }
  // The launcher too.
  static std::vector<pid_t> processes() {
    return find_processes([](const CommandLine& line) { return has_word(line, argument()); });
  }
  static std::vector<pid_t> ranks() {
    return find_processes([](const CommandLine& line) {
      return has_word(line, argument()) && is_program(line, "caravan");
    });
  }
  static bool all_are_gone() {
    return wait_for([] { return processes().empty(); }, 10);
  }
  static std::string run_path() { return bench_->path(run_name()) + "/"; }
  static std::string command(const std::string& overrides) {
    return bench_->train_command(run_name() + "/",
                                 "train.max_steps=100000 log.logging_steps=100000 " + overrides);
  }

  static ProcessResult train(const std::string& overrides, int num_ranks) {
    return run_caravan(command("runtime.watchdog_seconds=3 " + overrides), num_ranks,
                       "timeout -k 5 60");
  }

  // The only line that begins with "caravan: error:".
  static std::string error_line(const std::string& output) {
    constexpr char kPrefix[] = "caravan: error: ";
    const size_t begin = output.find(kPrefix);
    if (begin == std::string::npos) {
      ADD_FAILURE() << "no error line: " << output;
      return "";
    }
    EXPECT_EQ(output.find(kPrefix, begin + 1), std::string::npos) << "said twice: " << output;
    return output.substr(begin, output.find('\n', begin) - begin);
  }

  static void expect_parts(const std::string& line, const std::vector<std::string>& parts) {
    for (const std::string& part : parts) {
      EXPECT_NE(line.find(part), std::string::npos) << "no '" << part << "' in: " << line;
    }
  }

  // Four ranks, one of which fails in step 3: named, recorded, and nothing is left.
  static ProcessResult expect_lost(const std::string& fault, int rank,
                                   const std::vector<std::string>& parts) {
    const ProcessResult result = train("--fault " + fault + "@3:" + std::to_string(rank), 4);
    EXPECT_LT(result.seconds, kLimit + 5 + 5) << "it took too long";  // and 5 s to start
    const std::string line = error_line(result.output);
    expect_parts(line, {"rank " + std::to_string(rank) + " (host ", "step 3"});
    expect_parts(line, parts);
    const nlohmann::json record = nlohmann::json::parse(read_file(run_path() + "error.json"));
    EXPECT_EQ(record.at("rank"), rank);
    EXPECT_EQ(record.at("step"), 3);
    EXPECT_EQ(record.at("exit_code"), 6);
    EXPECT_EQ("caravan: error: " + record.at("message").get<std::string>(), line);
    EXPECT_TRUE(all_are_gone()) << "some are left";
    return result;
  }

  static inline Workbench* bench_ = nullptr;
};

TEST_F(Lost, AStoppedRank) {
  const ProcessResult result = expect_lost("stop", 2, {"no sign of life", "wait in all_reduce"});
  EXPECT_EQ(result.exit_code, 6) << result.output;
}

TEST_F(Lost, RankZeroStopped) {
  const ProcessResult result = expect_lost("stop", 0, {"no sign of life", "rank 1 waits in"});
  EXPECT_EQ(result.exit_code, 6) << result.output;
}

TEST_F(Lost, ARankThatLoops) {
  const ProcessResult result =
      expect_lost("hang", 1,
                  {"hangs", "phase computing, op 0: embedding",
                   "ranks 0, 2 and 3 wait in all_reduce", "program 'update'"});
  EXPECT_EQ(result.exit_code, 6) << result.output;
}

TEST_F(Lost, AKilledRankIsNamedAtOnce) {
  const ProcessResult result = expect_lost("kill", 2, {"died"});
  EXPECT_NE(result.exit_code, 0);
}

TEST_F(Lost, RankZeroKilled) {
  const ProcessResult result = expect_lost("kill", 0, {"died"});
  EXPECT_NE(result.exit_code, 0);
}

TEST_F(Lost, AnErrorOfOneRankIsTheOnlyOneSaid) {
  const ProcessResult result = train("--fault error@3:2", 4);
  EXPECT_EQ(result.exit_code, 1) << result.output;
  expect_parts(error_line(result.output), {"rank 2: ", "asked for"});
  const nlohmann::json record = nlohmann::json::parse(read_file(run_path() + "error.json"));
  EXPECT_EQ(record.at("rank"), 2);
  EXPECT_EQ(record.at("step"), 3);
  EXPECT_EQ(record.at("phase"), "computing");
  EXPECT_EQ(record.at("exit_code"), 1);
  EXPECT_TRUE(all_are_gone());
}

// Before MPI has started there is no watchdog yet; the start as a whole has a limit.
TEST_F(Lost, StoppedBeforeMpiStarts) {
  const std::string stop = "sh -c 'test $PMIX_RANK = 1 && kill -STOP $$; exec \"$@\"' sh";
  const ProcessResult result =
      run_caravan(bench_->train_command(run_name() + "/", "runtime.watchdog_seconds=1"), 0,
                  "timeout -k 1 40 mpirun -n 2 " + stop);
  EXPECT_EQ(result.exit_code, 6) << result.output;
  expect_parts(error_line(result.output), {"the start takes longer than 10 s", "stopped"});
  EXPECT_TRUE(all_are_gone());
}

TEST_F(Lost, ANewRunForgetsTheOldError) {
  train("--fault error@3:0", 0);
  EXPECT_TRUE(fs::exists(run_path() + "error.json"));
  const ProcessResult again = train("train.max_steps=2", 2);
  EXPECT_EQ(again.exit_code, 0) << again.output;
  EXPECT_FALSE(fs::exists(run_path() + "error.json"));
}

// Suspended for longer than the limit, as a scheduler does, and continued.
TEST_F(Lost, NotAJobThatWasSuspended) {
  ProcessResult result;
  std::jthread job([&] { result = train("checkpoint.save_steps=100000", 2); });
  EXPECT_TRUE(wait_for([] { return !read_file(run_path() + "metrics.jsonl").empty(); }, 10));
  const std::vector<pid_t> pids = ranks();
  EXPECT_EQ(pids.size(), 2u);
  send_signal(pids, SIGSTOP);
  std::this_thread::sleep_for(std::chrono::duration<double>(2 * kLimit));
  send_signal(pids, SIGCONT);
  std::this_thread::sleep_for(std::chrono::duration<double>(2 * kLimit));  // it trains on
  EXPECT_FALSE(fs::exists(run_path() + "error.json"));
  send_signal(ranks(), SIGUSR1);
  job.join();
  EXPECT_EQ(result.exit_code, 75) << result.output;
}

// Evaluating for several times the limit, batch by batch.
TEST_F(Lost, NotARankThatEvaluatesForLong) {
  const std::string slow =
      "model.hidden_size=512 model.num_hidden_layers=12 data.sequence_len=2 "
      "train.micro_batch_size=1 "
      "train.global_batch_size=2 train.max_steps=2 runtime.watchdog_seconds=1 ";
  const ProcessResult result = train(slow + "train.eval_steps=1", 2);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("step 1 | validation loss"), std::string::npos) << result.output;
  EXPECT_GT(result.seconds, 5) << "the test does not evaluate for long";
}

TEST_F(Lost, TheOpAtWhichPlansDifferIsNamed) {
  const std::string other = command("train.max_steps=2 model.intermediate_size=96");
  const ProcessResult result = run_caravan(
      command("train.max_steps=2") + " : -n 1 " + program_folder() + "/caravan " + other, 1,
      "timeout -k 5 60");
  EXPECT_EQ(result.exit_code, 1) << result.output;
  expect_parts(error_line(result.output),
               {"rank 1 planned op", "of program", "as matmul", "96", "[layers.0.mlp",
                "do all ranks run the same binary with the same configuration?"});
}

TEST_F(Lost, TermEndsAProcessThatIsAloneAtOnce) {
  const ProcessResult result =
      run_caravan(command(""), 0, "timeout --preserve-status -k 20 -s TERM 2");
  EXPECT_EQ(result.exit_code, 143) << result.output;
  EXPECT_EQ(result.output.find("caravan: error"), std::string::npos) << result.output;
}

TEST_F(Lost, AFaultThatIsNone) {
  const ProcessResult result = train("--fault stop@3:4", 0);
  EXPECT_EQ(result.exit_code, 2);
  expect_parts(error_line(result.output), {"stop@3:4", "KIND@STEP:RANK"});
}

}  // namespace
}  // namespace caravan
