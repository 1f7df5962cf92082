#include "tests/e2e/processes.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace caravan {
namespace {

namespace fs = std::filesystem;

CommandLine command_line_of(const fs::path& process) {
  std::ifstream file(process / "cmdline");
  CommandLine words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

}  // namespace

std::vector<pid_t> find_processes(const std::function<bool(const CommandLine&)>& is_wanted) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const CommandLine line = command_line_of(entry.path());
    if (!line.empty() && is_wanted(line)) found.push_back(std::stoi(name));
  }
  return found;
}

bool has_word(const CommandLine& line, const std::string& word) {
  return std::ranges::find(line, word) != line.end();
}

bool is_program(const CommandLine& line, const std::string& name) {
  return fs::path(line.front()).filename() == name;
}

void send_signal(const std::vector<pid_t>& processes, int signal) {
  for (const pid_t process : processes) kill(process, signal);
}

bool wait_for(const std::function<bool()>& condition, double seconds,
              const std::function<bool()>& give_up) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    const bool is_last = give_up() || std::chrono::steady_clock::now() > end;
    if (condition()) return true;
    if (is_last) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace caravan
