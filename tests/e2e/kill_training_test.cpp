// kill -9 of real training on four ranks, at random moments of steps and saves: no commit is lost,
// and what is started again ends with the bits of a run that was left alone.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "checkpoint/directory.h"
#include "runtime/rng.h"
#include "tests/e2e/job.h"
#include "tests/e2e/run_record.h"

namespace caravan {
namespace {

constexpr int kRanks = 4;
constexpr int kStepsPerKill = 20;  // more than are made between two kills

// One of a kind; with CARAVAN_SOAK=1 ten, for some minutes.
bool is_soak() { return std::getenv("CARAVAN_SOAK") != nullptr; }
int num_kills() { return is_soak() ? 30 : 3; }

int num_steps() { return kStepsPerKill * (num_kills() + 1); }

class KillTraining : public testing::Test {
 protected:
  static std::string options() {
    return "parallel.zero=1 checkpoint.save_steps=2 checkpoint.save_total_limit=3 "
           "log.logging_steps=1000 train.max_steps=" +
           std::to_string(num_steps());
  }
  std::string run() const { return bench_.path("killed"); }
  std::string checkpoints() const { return run() + "/checkpoints"; }

  // In turn: a rank, all ranks, mpirun.
  std::vector<pid_t> victims(const Job& job, int number) const {
    std::vector<pid_t> ranks = job.ranks();
    if (ranks.size() != kRanks) return {};
    if (number % 3 == 0) return {ranks[random(number, 0) % kRanks]};
    return number % 3 == 1 ? ranks : job.launcher();
  }

  // Starts the run, kills it some steps later and waits until all of it is gone.
  void kill_once(int number) {
    const size_t before = num_step_lines(run());
    const size_t enough = before + 3 + random(number, 1) % 4;
    Job job(bench_, "killed", options(), kRanks);
    ASSERT_TRUE(job.wait_until([&] { return num_step_lines(run()) >= enough; }))
        << job.result().output;
    const std::vector<pid_t> found = victims(job, number);
    ASSERT_FALSE(found.empty());
    std::this_thread::sleep_for(std::chrono::microseconds(random(number, 2) % 20000));
    ASSERT_FALSE(job.is_over()) << "it ended by itself before kill " << number;
    for (const pid_t victim : found) kill(victim, SIGKILL);
    // Without their mpirun, ranks notice on their own.
    ASSERT_TRUE(job.is_gone_within(20)) << "processes are left after kill " << number;
    EXPECT_NE(job.result().exit_code, 0);
  }

  uint64_t random(int number, int what) const {
    return random_.bits(static_cast<uint64_t>(3 * number + what));
  }

  Workbench bench_;
  RandomStream random_{21, RandomPurpose::test, 0};
};

TEST_F(KillTraining, LosesNoCommitAndNoBit) {
  const ProcessResult whole = bench_.train("whole", options(), kRanks);
  ASSERT_EQ(whole.exit_code, 0) << whole.output;
  int64_t newest = -1;
  int num_in_saves = 0;
  for (int i = 0; i < num_kills(); ++i) {
    kill_once(i);
    if (HasFatalFailure()) return;
    const LatestCheckpoint latest = find_latest(checkpoints());
    ASSERT_TRUE(latest.ignored.empty()) << latest.ignored.front();
    ASSERT_GE(latest.step, newest) << "a commit was lost at kill " << i;
    newest = latest.step;
    if (!list_temporaries(checkpoints()).empty()) ++num_in_saves;
  }
  EXPECT_GT(newest, num_kills()) << "too few saves for the test to mean anything";
  EXPECT_TRUE(num_in_saves > 0 || !is_soak()) << "no kill fell into a save";  // three may miss
  std::cout << num_kills() << " kills, " << num_in_saves << " of them within a save\n";
  const ProcessResult rest = bench_.train("killed", options(), kRanks);
  ASSERT_EQ(rest.exit_code, 0) << rest.output;
  EXPECT_TRUE(manifest_of(run(), num_steps()) == manifest_of(bench_.path("whole"), num_steps()));
  EXPECT_EQ(step_lines(run()), step_lines(bench_.path("whole")));
  EXPECT_EQ(step_lines(run()).size(), static_cast<size_t>(num_steps()));
}

}  // namespace
}  // namespace caravan
