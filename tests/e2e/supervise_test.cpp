// `caravan supervise` around the real program: ranks that are killed, results that do not show it.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/e2e/caravan_process.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

const std::string kProgram = std::string(CARAVAN_BINARY_DIR) + "/caravan";

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
                       train_arguments(run, overrides));
  }

  static std::string train_arguments(const std::string& run, const std::string& overrides) {
    const std::string data = bench_->path("data");
    return "train " + bench_->path("tiny.yaml") + " output_dir=" + bench_->path(run) +
           " data.train=" + data + " data.validation=" + data + " " + overrides;
  }

  // The steps of metrics.jsonl that count, with their losses.
  static std::map<int, double> kept_losses(const std::string& run) {
    std::map<int, double> losses;
    std::ifstream file(bench_->path(run) + "/metrics.jsonl");
    for (std::string text; std::getline(file, text);) {
      const auto line = nlohmann::json::parse(text, nullptr, false);
      if (line.is_discarded()) continue;
      if (!line.contains("event")) losses[line.at("step")] = line.at("loss");
      if (line.value("event", "") == "resume")
        losses.erase(losses.upper_bound(line.at("step")), losses.end());
    }
    return losses;
  }

  // With the checksums of all shards: equal only when all bits are.
  static nlohmann::json tensors(const std::string& run, int step) {
    std::ostringstream path;
    path << bench_->path(run) << "/checkpoints/step-" << std::setw(8) << std::setfill('0') << step
         << "/manifest.json";
    std::ifstream file(path.str());
    EXPECT_TRUE(file) << path.str();
    return nlohmann::json::parse(file).at("tensors");
  }

  static inline Workbench* bench_ = nullptr;
};

// The words of a process's command line; none when it is gone.
std::vector<std::string> words_of(const fs::path& process) {
  std::ifstream file(process / "cmdline");
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

// Processes that train into `run`, in the order of /proc: ranks have `second_word` "train",
// supervise "supervise", mpirun "-n".
std::vector<pid_t> processes(const std::string& run, const std::string& second_word) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::vector<std::string> words = words_of(entry.path());
    if (words.size() < 2 || words[1] != second_word) continue;
    if (std::ranges::find(words, "output_dir=" + run) != words.end()) {
      found.push_back(static_cast<pid_t>(std::stol(name)));
    }
  }
  return found;
}

// Waits for a commit of a later step than `known`, and returns its step.
size_t next_commit(const std::string& run, size_t known, const std::stop_token& stop) {
  size_t newest = known;
  while (newest <= known && !stop.stop_requested()) {
    std::this_thread::sleep_for(1ms);
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(run + "/checkpoints", error)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("step-")) newest = std::max<size_t>(newest, std::stoul(name.substr(5)));
    }
  }
  return newest;
}

// After each of `times` commits, sends `signal` to the last process found.
std::jthread signal_after_commits(const std::string& run, const std::string& second_word,
                                  int signal, int times) {
  return std::jthread([=](const std::stop_token& stop) {
    size_t step = 0;
    for (int i = 0; i < times; ++i) {
      step = next_commit(run, step, stop);
      const std::vector<pid_t> found = processes(run, second_word);
      if (!found.empty()) kill(found.back(), signal);
    }
  });
}

constexpr char kLong[] = "train.max_steps=400 checkpoint.save_steps=10 log.logging_steps=1000";

TEST_F(Supervised, KilledRanksLeaveNoTraceInTheResult) {
  const ProcessResult calm = bench_->train("calm", kLong, 2);
  ASSERT_EQ(calm.exit_code, 0) << calm.output;
  auto killer = signal_after_commits(bench_->path("killed"), "train", SIGKILL, 3);
  const ProcessResult result = supervise("killed", kLong);
  killer.request_stop();
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("supervise: restart 3 of 10 | exit code 137: killed by signal 9 | "
                               "goes on from " +
                               bench_->path("killed") + "/checkpoints/step-"),
            std::string::npos)
      << result.output;
  EXPECT_NE(result.output.find("supervise: 3 restarts | effective time "), std::string::npos)
      << result.output;
  EXPECT_EQ(tensors("killed", 400), tensors("calm", 400));
  EXPECT_EQ(kept_losses("killed"), kept_losses("calm"));
}

// Its ranks live on for some seconds and hold the folder.
TEST_F(Supervised, AKilledLauncherIsReplaced) {
  auto killer = signal_after_commits(bench_->path("launcher"), "-n", SIGKILL, 1);
  const ProcessResult result = supervise("launcher", kLong);
  killer.request_stop();
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(result.output.find("supervise: 1 restart | "), std::string::npos) << result.output;
}

TEST_F(Supervised, AskedToStopItStops) {
  const std::string endless = "train.max_steps=1000000 checkpoint.save_steps=10";
  auto asker = signal_after_commits(bench_->path("stopped"), "supervise", SIGUSR1, 1);
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
      run_caravan("supervise -- sh -c 'kill -9 $$' " + train_arguments("hopeless", ""));
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
