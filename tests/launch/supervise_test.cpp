// What supervise decides; tests/e2e/supervise_test.cpp runs it.
#include "launch/supervise_command.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "launch/child_process.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

TEST(Supervise, RestartsWhatARestartMayHeal) {
  for (const int code : {1, 6, 137, 139, 143, 255}) EXPECT_TRUE(is_worth_a_restart(code)) << code;
  for (const int code : {0, 2, 3, 4, 5, 75}) EXPECT_FALSE(is_worth_a_restart(code)) << code;
}

TEST(Supervise, SaysWhatEndedTheCommand) {
  EXPECT_EQ(describe_exit_code(1), "exit code 1");
  EXPECT_EQ(describe_exit_code(6), "exit code 6: another process was lost");
  EXPECT_EQ(describe_exit_code(137), "exit code 137: killed by signal 9");
  EXPECT_EQ(describe_exit_code(255), "exit code 255");
}

TEST(Supervise, TheSamePlaceThreeTimesIsEnough) {
  RepeatedFailure failure;
  EXPECT_FALSE(failure.is_third({.last_step = 7, .committed_step = 5}));
  EXPECT_FALSE(failure.is_third({.last_step = 7, .committed_step = 5}));
  EXPECT_FALSE(failure.is_third({.last_step = 8, .committed_step = 5}));  // further
  EXPECT_FALSE(failure.is_third({.last_step = 8, .committed_step = 5}));
  EXPECT_FALSE(failure.is_third({.last_step = 8, .committed_step = 8}));  // a new checkpoint
  EXPECT_FALSE(failure.is_third({.last_step = {}, .committed_step = 8}));
  EXPECT_FALSE(failure.is_third({.last_step = {}, .committed_step = 8}));
  EXPECT_TRUE(failure.is_third({.last_step = {}, .committed_step = 8}));
}

class TrainingConfig : public testing::Test {
 protected:
  TrainingConfig() {
    std::ofstream(config_) << R"(
output_dir: runs/a
model: {family: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
        num_attention_heads: 4}
data: {train: data, sequence_len: 32}
train: {max_steps: 6, micro_batch_size: 2, global_batch_size: 8}
optimizer: {learning_rate: 1e-3}
)";
  }

  std::optional<Config> find(std::vector<std::string> command) {
    reason_.clear();
    return training_config(command, reason_);
  }

  TemporaryFolder folder_;
  std::string config_ = folder_ / "a.yaml", reason_;
};

TEST_F(TrainingConfig, IsFoundBehindALauncher) {
  const auto config =
      find({"mpirun", "-n", "4", "build/caravan", "train", config_, "train.max_steps=9",
            "--allow-config-change", "--dump-graph", "plan", "output_dir=runs/b"});
  ASSERT_TRUE(config) << reason_;
  EXPECT_EQ(config->output_dir, "runs/b");
  EXPECT_EQ(config->train.max_steps, 9);
  EXPECT_EQ(reason_, "");
}

TEST_F(TrainingConfig, IsAbsentWithAReason) {
  EXPECT_FALSE(find({"mpirun", "hostname"}));
  EXPECT_EQ(reason_, "the command has no `train CONFIG`");
  EXPECT_FALSE(find({"caravan", "train"}));
  EXPECT_EQ(reason_, "no CONFIG follows `train`");
  EXPECT_FALSE(find({"caravan", "train", config_, "train.max_step=9"}));
  EXPECT_NE(reason_.find("max_steps"), std::string::npos) << reason_;
}

TEST(ChildProcess, EndsAsAShellWouldTell) {
  ChildProcess child;
  EXPECT_EQ(child.run({"true"}), 0);
  EXPECT_EQ(child.run({"sh", "-c", "exit 6"}), 6);
  EXPECT_EQ(child.run({"sh", "-c", "kill -9 $$"}), 137);
  EXPECT_FALSE(child.stop_signal());
}

TEST(ChildProcess, AProgramThatIsNotThereIsTheUsersMistake) {
  EXPECT_EQ(config_message([] { ChildProcess().run({"no-such-program"}); }),
            "cannot start 'no-such-program': No such file or directory; give a program that is in "
            "PATH");
}

// The shell gets the signal through its parent, and can trap it: it is not blocked.
TEST(ChildProcess, PassesSignalsOn) {
  ChildProcess child;
  const std::string wait_for_it =
      "trap 'exit 75' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done";
  EXPECT_EQ(child.run({"bash", "-c", wait_for_it}), 75);
  EXPECT_EQ(child.stop_signal(), SIGUSR1);
}

TEST(ChildProcess, AskingToSaveIsNotAskingToStop) {
  ChildProcess child;
  const std::string wait_for_it =
      "trap 'exit 3' USR2; kill -USR2 $PPID; while :; do sleep 0.01; done";
  EXPECT_EQ(child.run({"bash", "-c", wait_for_it}), 3);
  EXPECT_FALSE(child.stop_signal());
}

TEST(ChildProcess, WhatTheCommandLeavesBehindIsCleared) {
  const TemporaryFolder folder;
  const std::string path = folder / "pid";
  ChildProcess child;
  ASSERT_EQ(child.run({"sh", "-c", "sleep 1000 & echo $! >" + path}), 0);
  pid_t left_behind = 0;
  std::ifstream(path) >> left_behind;
  ASSERT_GT(left_behind, 0);
  EXPECT_EQ(kill(left_behind, 0), 0);
  child.clear_leftovers(std::chrono::seconds(0));
  EXPECT_EQ(kill(left_behind, 0), -1);
}

// A shell's `program > >(tee log)` makes tee a child of the program.
TEST(ChildProcess, ChildrenFromBeforeStay) {
  const pid_t before = fork();
  if (before == 0) {
    execlp("sleep", "sleep", "1000", nullptr);
    _exit(1);
  }
  ChildProcess child;
  ASSERT_EQ(child.run({"true"}), 0);
  child.clear_leftovers(std::chrono::seconds(0));
  int status = 0;
  EXPECT_EQ(waitpid(before, &status, WNOHANG), 0);
  kill(before, SIGKILL);
  waitpid(before, &status, 0);
}

}  // namespace
}  // namespace caravan
