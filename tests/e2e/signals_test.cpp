// What schedulers and people send to a training run: USR1, USR2 and TERM, to the program, to its
// launcher, while it saves and while it hangs. Whatever comes, the run goes on with the same bits.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "checkpoint/directory.h"
#include "tests/e2e/job.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/run_record.h"

namespace caravan {
namespace {

using namespace std::chrono_literals;

constexpr char kEndless[] = "train.max_steps=100000 log.logging_steps=100000 ";

class Signals : public testing::Test {
 protected:
  std::string run() const { return bench_.path("run"); }
  std::string checkpoints() const { return run() + "/checkpoints"; }
  int64_t newest() const { return find_latest(checkpoints()).step; }
  bool has_steps() const { return num_step_lines(run()) >= 3; }

  bool saves(int64_t step) const {
    return std::ranges::any_of(list_temporaries(checkpoints()), [&](const std::string& folder) {
      return folder.find(step_folder_name(step)) != std::string::npos;
    });
  }

  static void send(const std::vector<pid_t>& processes, int signal) {
    EXPECT_FALSE(processes.empty()) << "nobody to send it to";
    send_signal(processes, signal);
  }

  // Goes on from where the run stands: nothing is damaged, and all bits are those of a run that got
  // no signal.
  void expect_exact_resume(const std::string& options, int num_ranks) {
    const LatestCheckpoint latest = find_latest(checkpoints());
    EXPECT_TRUE(latest.ignored.empty()) << latest.ignored.front();
    ASSERT_GT(latest.step, 0);
    const int64_t last = latest.step + 3;
    const std::string steps = options + " train.max_steps=" + std::to_string(last);
    std::filesystem::remove_all(bench_.path("calm"));
    for (const std::string name : {"run", "calm"}) {
      const ProcessResult result = bench_.train(name, steps, num_ranks);
      ASSERT_EQ(result.exit_code, 0) << result.output;
    }
    EXPECT_TRUE(manifest_of(run(), last) == manifest_of(bench_.path("calm"), last));
    auto lines = step_lines(run());
    // What was trained after the newest checkpoint, and is now more than the run has steps.
    lines.erase(lines.upper_bound(last), lines.end());
    EXPECT_EQ(lines, step_lines(bench_.path("calm")));
  }

  Workbench bench_;
};

// What a scheduler does before the time of a job is over.
TEST_F(Signals, Usr1SavesAndStops) {
  Job job(bench_, "run", kEndless, 2);
  ASSERT_TRUE(job.wait_until([&] { return has_steps(); }));
  send(job.launcher(), SIGUSR1);
  const ProcessResult stopped = job.result();
  EXPECT_EQ(stopped.exit_code, 75) << stopped.output;
  EXPECT_EQ(static_cast<size_t>(newest()), num_step_lines(run())) << "it saves the last step";
  expect_exact_resume("", 2);
}

TEST_F(Signals, Usr1WhileASaveIsInFlight) {
  const std::string options = "parallel.zero=1 checkpoint.save_steps=1 ";
  for (int64_t i = 1; i <= 3; ++i) {
    const int64_t before = newest();
    Job job(bench_, "run", kEndless + options, 2);
    ASSERT_TRUE(job.wait_until(
        [&] { return newest() >= before + i && !list_temporaries(checkpoints()).empty(); }));
    send(job.launcher(), SIGUSR1);
    const ProcessResult stopped = job.result();
    EXPECT_EQ(stopped.exit_code, 75) << stopped.output;
    EXPECT_TRUE(list_temporaries(checkpoints()).empty()) << "a save was not finished";
    EXPECT_EQ(static_cast<size_t>(newest()), num_step_lines(run()));
  }
  expect_exact_resume(options, 2);
}

// A rank hangs in step 9, while step 8 is being saved, and so the first USR1 is never answered.
// Sent again and again, it counts as the same request for two seconds; then it ends the ranks. It
// goes to them and not to mpirun, which it would end once mpirun has begun to clean up.
TEST_F(Signals, ASecondUsr1EndsAtOnce) {
  const std::string options = "parallel.zero=1 checkpoint.save_steps=1 ";
  const std::string hangs = "runtime.watchdog_seconds=0 --fault hang@9:1";
  Job job(bench_, "run", kEndless + options + hangs, 2);
  // The line of step 8 is not enough: ranks still look for signals after it, and then they save.
  ASSERT_TRUE(job.wait_until([&] { return saves(8); }));
  const auto first = std::chrono::steady_clock::now();
  ASSERT_FALSE(job.wait_until([&] {
    send_signal(job.ranks(), SIGUSR1);
    std::this_thread::sleep_for(100ms);
    return std::chrono::steady_clock::now() - first > 20s;
  })) << "it does not end";
  EXPECT_GE(std::chrono::steady_clock::now() - first, 2s) << "one request was taken for two";
  const ProcessResult ended = job.result();
  EXPECT_EQ(ended.exit_code, 75) << ended.output;
  EXPECT_TRUE(job.is_gone_within(10));
  EXPECT_EQ(newest(), 7);
  expect_exact_resume(options, 2);
}

// Signals find the process in generated code that no handler may interrupt.
TEST_F(Signals, AStormOfUsr2HarmsNothing) {
  Job job(bench_, "run", "train.max_steps=150", 0);
  // Not before: a program that has only begun to start is ended by such a signal, as any other.
  ASSERT_TRUE(job.wait_until([&] { return has_steps(); }));
  while (!job.is_over()) {
    send_signal(job.ranks(), SIGUSR2);
    std::this_thread::sleep_for(10ms);
  }
  const ProcessResult result = job.result();
  EXPECT_EQ(result.exit_code, 0) << result.output;
  const size_t first_save = result.output.find("| saved");  // a signal's, not that of the end
  EXPECT_NE(first_save, result.output.rfind("| saved")) << result.output;
  expect_exact_resume("", 0);
}

// One process ends with the code that shells give; under mpirun it is mpirun's own, 1.
TEST_F(Signals, TermEndsAtOnceAndLosesNoCommit) {
  for (const int num_ranks : {0, 2}) {
    SCOPED_TRACE(num_ranks);
    std::filesystem::remove_all(run());
    const std::string options = "checkpoint.save_steps=1 ";
    Job job(bench_, "run", kEndless + options, num_ranks);
    ASSERT_TRUE(job.wait_until([&] { return newest() >= 3; }));
    send(num_ranks == 0 ? job.ranks() : job.launcher(), SIGTERM);
    const ProcessResult ended = job.result();
    EXPECT_EQ(ended.exit_code, num_ranks == 0 ? 143 : 1) << ended.output;
    EXPECT_TRUE(job.is_gone_within(10)) << "processes are left";
    EXPECT_GE(newest(), 3);
    expect_exact_resume(options, num_ranks);
  }
}

}  // namespace
}  // namespace caravan
