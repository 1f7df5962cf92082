// `caravan supervise` around the real program: ranks that are killed, results that do not show it.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "checkpoint/directory.h"
#include "tests/e2e/caravan_process.h"
#include "tests/e2e/processes.h"
#include "tests/e2e/run_record.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

const std::string kProgram = program_folder() + "/caravan";

class Supervised : public testing::Test {
 protected:
  static void SetUpTestSuite() { bench_ = new Workbench; }
  static void TearDownTestSuite() {
    delete bench_;
    bench_ = nullptr;
  }

  // `caravan supervise OPTIONS -- mpirun -n 2 caravan train ...` into folder()/run.
  static ProcessResult supervise(const std::string& run, const std::string& overrides,
                                 const std::string& options = "") {
    return run_caravan("supervise " + options + " -- mpirun -n 2 " + kProgram + " " +
                       bench_->train_command(run, overrides));
  }

  static std::string path(const std::string& run) { return bench_->path(run); }

  static inline Workbench* bench_ = nullptr;
};

// Processes that train into `run`: ranks have `second_word` "train", supervise "supervise", mpirun
// "-n".
std::vector<pid_t> processes(const std::string& run, const std::string& second_word) {
  return find_processes([&](const CommandLine& line) {
    return line.size() > 1 && line[1] == second_word && has_word(line, "output_dir=" + run);
  });
}

// After each of `times` commits, sends `signal` to the last process found.
std::jthread signal_after_commits(const std::string& run, const std::string& second_word,
                                  int signal, int times) {
  return std::jthread([=](const std::stop_token& stop) {
    const auto newest = [&] { return find_latest(run + "/checkpoints").step; };
    int64_t known = 0;
    for (int i = 0; i < times; ++i) {
      while (newest() <= known && !stop.stop_requested()) std::this_thread::sleep_for(1ms);
      known = newest();
      const std::vector<pid_t> found = processes(run, second_word);
      if (!found.empty()) kill(found.back(), signal);
    }
  });
}

constexpr char kLong[] = "train.max_steps=400 checkpoint.save_steps=10 log.logging_steps=1000";

TEST_F(Supervised, KilledRanksLeaveNoTraceInTheResult) {
  const ProcessResult calm = bench_->train("calm", kLong, 2);
  ASSERT_EQ(calm.exit_code, 0) << calm.output;
  auto killer = signal_after_commits(path("killed"), "train", SIGKILL, 3);
  const ProcessResult result = supervise("killed", kLong);
  killer.request_stop();
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("supervise: restart 3 of 10 | exit code 137: killed by signal 9 | "
                               "goes on from " +
                               path("killed") + "/checkpoints/step-"),
            std::string::npos)
      << result.output;
  EXPECT_NE(result.output.find("supervise: 3 restarts | effective time "), std::string::npos)
      << result.output;
  EXPECT_TRUE(manifest_of(path("killed"), 400) == manifest_of(path("calm"), 400));
  EXPECT_EQ(step_lines(path("killed")), step_lines(path("calm")));
}

// Its ranks live on for some seconds and hold the folder.
TEST_F(Supervised, AKilledLauncherIsReplaced) {
  auto killer = signal_after_commits(path("launcher"), "-n", SIGKILL, 1);
  const ProcessResult result = supervise("launcher", kLong);
  killer.request_stop();
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("supervise: 1 restart | "), std::string::npos) << result.output;
}

TEST_F(Supervised, AskedToStopItStops) {
  const std::string endless = "train.max_steps=1000000 checkpoint.save_steps=10";
  auto asker = signal_after_commits(path("stopped"), "supervise", SIGUSR1, 1);
  const ProcessResult result = supervise("stopped", endless + " log.logging_steps=1000000");
  EXPECT_EQ(result.exit_code, 75) << result.output;
  EXPECT_NE(result.output.find("supervise: 0 restarts | effective time "), std::string::npos)
      << result.output;
}

bool has_children(pid_t process) {
  const std::string id = std::to_string(process);
  std::ifstream file("/proc/" + id + "/task/" + id + "/children");
  pid_t child = 0;
  return static_cast<bool>(file >> child);
}

// Nothing runs during the delay: it ends at once, as the signal would have ended the command.
TEST_F(Supervised, StopsWhileNothingRuns) {
  for (const auto& [signal, code] : {std::pair{SIGUSR1, 75}, std::pair{SIGTERM, 143}}) {
    const std::string path = bench_->path("waiting" + std::to_string(signal));
    std::jthread asker([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        std::this_thread::sleep_for(10ms);
        for (const pid_t found : processes(path, "supervise")) {
          if (fs::exists(path) && !has_children(found)) kill(found, signal);
        }
      }
    });
    const ProcessResult result = run_caravan("supervise --delay 1000 -- sh -c 'touch " + path +
                                             "; exit 6' sh output_dir=" + path);
    asker.request_stop();
    EXPECT_EQ(result.exit_code, code) << result.output;
  }
}

TEST_F(Supervised, AMistakeIsNotRepeated) {
  const ProcessResult result = supervise("mistaken", "train.global_batch_size=7");
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_NE(result.output.find("supervise: 0 restarts"), std::string::npos) << result.output;
}

TEST_F(Supervised, GivesUpWhenRestartsAreUsedUp) {
  const ProcessResult result = run_caravan("supervise --max-restarts 2 -- sh -c 'exit 6'");
  EXPECT_EQ(result.exit_code, 6) << result.output;
  EXPECT_EQ(result.output,
            "supervise: restart 1 of 2 | exit code 6: another process was lost | starts again\n"
            "supervise: restart 2 of 2 | exit code 6: another process was lost | starts again\n"
            "supervise: exit code 6: another process was lost; not started again: 2 restarts are "
            "used up; --max-restarts N allows more\n"
            "supervise: 2 restarts | effective time is not known: the command has no `train "
            "CONFIG`\n");
}

TEST_F(Supervised, GivesUpEarlyWhereRestartsDoNotHelp) {
  const ProcessResult result =
      run_caravan("supervise -- sh -c 'kill -9 $$' " + bench_->train_command("hopeless", ""));
  EXPECT_EQ(result.exit_code, 137) << result.output;
  EXPECT_NE(result.output.find("not started again: 3 times in a row it died before its first step "
                               "without a new checkpoint\nsupervise: 2 restarts"),
            std::string::npos)
      << result.output;
}

TEST_F(Supervised, StartsRanksAndIsNone) {
  const ProcessResult result = run_caravan("supervise -- true", 2);
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_NE(result.output.find("caravan supervise -- mpirun"), std::string::npos) << result.output;
}

}  // namespace
}  // namespace caravan
