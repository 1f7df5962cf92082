#include "tests/e2e/job.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>

namespace caravan {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// The words of a command line; none when the process is gone, or a zombie.
std::vector<std::string> words_of(const fs::path& process) {
  std::ifstream file(process / "cmdline");
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

bool wait_for(const std::function<bool()>& condition, const std::function<bool()>& give_up,
              std::chrono::duration<double> limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const bool is_last = give_up() || std::chrono::steady_clock::now() > end;
    if (condition()) return true;
    if (is_last) return false;
    std::this_thread::sleep_for(1ms);
  }
}

}  // namespace

Job::Job(const Workbench& bench, const std::string& run, const std::string& overrides,
         int num_ranks)
    : argument_("output_dir=" + bench.path(run)),
      result_(std::async(std::launch::async,
                         [=, &bench] { return bench.train(run, overrides, num_ranks); })) {}

// More than once: it may only just be starting processes.
Job::~Job() {
  while (!is_over() || !is_gone_within(0)) {
    kill_all();
    std::this_thread::sleep_for(10ms);
  }
}

bool Job::is_over() const {
  return !result_.valid() || result_.wait_for(0s) == std::future_status::ready;
}

bool Job::wait_until(const std::function<bool()>& condition) const {
  return wait_for(
      condition, [this] { return is_over(); }, 60s);
}

ProcessResult Job::result() {
  if (result_.wait_for(120s) != std::future_status::ready) {
    ADD_FAILURE() << "the job does not end";
    kill_all();
  }
  return result_.get();
}

std::vector<pid_t> Job::find(
    const std::function<bool(const std::string& program)>& is_wanted) const {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::vector<std::string> words = words_of(entry.path());
    if (words.empty() || std::ranges::find(words, argument_) == words.end()) continue;
    if (is_wanted(fs::path(words[0]).filename())) found.push_back(std::stoi(name));
  }
  return found;
}

std::vector<pid_t> Job::ranks() const {
  return find([](const std::string& program) { return program == "caravan"; });
}

std::vector<pid_t> Job::launcher() const {
  return find([](const std::string& program) { return program == "mpirun"; });
}

bool Job::is_gone_within(double seconds) const {
  const auto is_gone = [this] { return find([](const std::string&) { return true; }).empty(); };
  return wait_for(
      is_gone, [] { return false; }, std::chrono::duration<double>(seconds));
}

void Job::kill_all() const {
  for (const pid_t process : find([](const std::string&) { return true; })) kill(process, SIGKILL);
}

}  // namespace caravan
