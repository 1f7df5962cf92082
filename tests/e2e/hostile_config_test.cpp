// Files that are made to hurt whoever reads them as a configuration: the real program refuses each
// with one line and exit code 2, in little time and memory. Both are the kernel's figures for the
// process, from its first instruction to its last.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "tests/e2e/caravan_process.h"
#include "tests/support/text.h"

namespace caravan {
namespace {

constexpr double kMaxSeconds = 1;  // of processor time: others use this machine, too
constexpr int64_t kMaxResidentKib = 100 * 1024;
constexpr int kHuge = 10 << 20;      // bytes: refused for its size
constexpr int kLargest = 256 << 10;  // bytes: what is still parsed

std::string repeated(const std::string& unit, size_t num_bytes) {
  std::string text;
  while (text.size() < num_bytes) text += unit;
  text.resize(num_bytes);
  return text;
}

struct Measured {
  int exit_code = -1;
  std::string output;
  double cpu_seconds = 0;
  int64_t resident_kib = 0;  // at its peak
};

Measured plan(const std::string& path) {
  const std::string program = program_folder() + "/caravan";
  std::array<int, 2> pipe{};
  EXPECT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe[1], STDOUT_FILENO);
    ::dup2(pipe[1], STDERR_FILENO);
    ::execl(program.c_str(), "caravan", "plan", path.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(pipe[1]);
  Measured result;
  std::array<char, 4096> buffer;
  for (ssize_t n; (n = ::read(pipe[0], buffer.data(), buffer.size())) > 0;) {
    result.output.append(buffer.data(), static_cast<size_t>(n));
  }
  ::close(pipe[0]);
  int status = 0;
  rusage usage{};
  EXPECT_EQ(::wait4(child, &status, 0, &usage), child);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  result.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  result.resident_kib = usage.ru_maxrss;
  return result;
}

class HostileConfig : public testing::Test {
 protected:
  // `part` must be in the one line.
  void expect_refused(const std::string& name, const std::string& text, const std::string& part) {
    const std::string path = folder_ / (name + ".yaml");
    std::ofstream(path, std::ios::binary) << text;
    const Measured result = plan(path);
    EXPECT_EQ(result.exit_code, 2) << name << ": " << result.output;
    EXPECT_EQ(result.output.find("caravan: error: " + path + ":"), 0u) << result.output;
    EXPECT_NE(result.output.find(part), std::string::npos) << name << ": " << result.output;
    EXPECT_EQ(result.output.find('\n'), result.output.size() - 1) << name << ": " << result.output;
    EXPECT_LT(result.output.size(), 1000u) << name;
    EXPECT_LT(result.cpu_seconds, kMaxSeconds) << name;
    EXPECT_LT(result.resident_kib, kMaxResidentKib) << name;
  }

  TemporaryFolder folder_;
};

TEST_F(HostileConfig, AliasesAndAnchors) {
  const std::string refusal = "anchors and aliases are not supported";
  expect_refused("bomb", alias_bomb(), ":1:5: " + refusal);
  expect_refused("self", "a: &a [*a]\n", ":1:4: " + refusal);
  expect_refused("self-map", "a: &a {b: *a}\n", ":1:4: " + refusal);
  expect_refused("merge", "a: {<<: {b: 1}}\n", "merge keys");
}

TEST_F(HostileConfig, Nesting) {
  expect_refused("brackets", std::string(100'000, '['), "a list is not closed");
  expect_refused("braces", std::string(100'000, '{'), "a map is not closed");
  expect_refused("closed", std::string(100'000, '[') + std::string(100'000, ']'), "nested more");
  expect_refused("dashes", repeated("- ", 100'000), "nested more than 32 deep");
  expect_refused("keys", repeated("? ", 100'000), ":1:3: ");
  expect_refused("maps", repeated("a: {", 100'000), "nested more than 32 deep");
}

TEST_F(HostileConfig, KeysAndCharacters) {
  expect_refused("duplicate", "output_dir: a\noutput_dir: b\n", ":2:1: duplicate key 'output_dir'");
  expect_refused("list-key", "[1, 2]: 3\n", "stands where a key must");
  expect_refused("map-key", "? {a: 1}\n: 3\n", "stands where a key must");
  expect_refused("null-key", "~: 3\n", "a key is missing");
  expect_refused("tab", "model:\n\thidden_size: 4\n", ":2:1: a tab in the indentation");
  expect_refused("nul", std::string("output_dir: a\0b\n", 16), "control character 0x00");
  expect_refused("escaped-nul", "output_dir: \"a\\0b\"\n", "control character");
  expect_refused("latin-1", "output_dir: \xe9\n", "not valid UTF-8");
  expect_refused("tag", "output_dir: !!python/object/apply:os.system [ls]\n", "is not supported");
}

TEST_F(HostileConfig, TenMegabytes) {
  const std::string size = "larger than 262144 bytes";
  expect_refused("long-line", "output_dir: " + std::string(kHuge, 'a'), size);
  std::string keys;
  for (int i = 0; keys.size() < kHuge; ++i) keys += "key" + std::to_string(i) + ": 1\n";
  expect_refused("many-keys", keys, size);
  expect_refused("deep", std::string(kHuge, '['), size);
  expect_refused("list", "a:\n" + repeated("- 1\n", kHuge), size);
}

// What is just small enough to be parsed, in the shapes that cost the parser most.
TEST_F(HostileConfig, TheLargestThatAreParsed) {
  expect_refused("long-line", "output_dir: " + std::string(kLargest - 12, 'a'), ":1:1: ");
  std::string keys;
  for (int i = 0; keys.size() < kLargest - 20; ++i) keys += "k" + std::to_string(i) + ": 1\n";
  expect_refused("many-keys", keys, "more than 20000 values");
  for (const char* unit : {"[", "{", "[{", "]", "\"", "'", "!", "%", "#", ":"}) {
    expect_refused("units", repeated(unit, kLargest), ":");
  }
  expect_refused("list", "[" + repeated("1,", kLargest - 1), "a list is not closed");
  expect_refused("pairs", "[" + repeated("a: 1,", kLargest - 1), "a list is not closed");
  expect_refused("keys", "{" + repeated("a,", kLargest - 1), "a map is not closed");
  expect_refused("lines", "a:\n" + repeated("- 1\n", kLargest - 3), "more than 20000 values");
  expect_refused("escapes", "a: \"" + repeated("\\n", kLargest - 6) + "\"", "line break");
  std::string stairs;
  for (int i = 0; i < 700; ++i) stairs += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  expect_refused("stairs", stairs, "nested more than 32 deep");
}

}  // namespace
}  // namespace caravan
