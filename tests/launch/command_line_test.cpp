// Exit codes and the one line on standard error.
#include "launch/command_line.h"

#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

#include "runtime/error.h"

namespace caravan {
namespace {

struct Outcome {
  int code = 0;
  std::string errors, output;
};

// Runs "caravan <arguments>" with a command `go` that does `action`.
Outcome run(
    std::vector<const char*> arguments, const std::function<void()>& action = [] {}) {
  CLI::App app("about", "caravan");
  app.require_subcommand(1);
  app.add_subcommand("go", "goes")->callback(action);
  arguments.insert(arguments.begin(), "caravan");
  testing::internal::CaptureStderr();
  testing::internal::CaptureStdout();
  Outcome outcome;
  outcome.code = run_command_line(app, static_cast<int>(arguments.size()), arguments.data());
  outcome.errors = testing::internal::GetCapturedStderr();
  outcome.output = testing::internal::GetCapturedStdout();
  return outcome;
}

TEST(CommandLine, RunsTheCommand) {
  bool ran = false;
  const Outcome outcome = run({"go"}, [&] { ran = true; });
  EXPECT_TRUE(ran);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.errors, "");
}

TEST(CommandLine, ErrorsBecomeOneLineAndACode) {
  const Outcome config = run({"go"}, [] { throw config_error("a.yaml:1:1: wrong\nlines"); });
  EXPECT_EQ(config.code, 2);
  EXPECT_EQ(config.errors, "caravan: error: a.yaml:1:1: wrong lines\n");
  EXPECT_EQ(run({"go"}, [] { throw data_error("x"); }).code, 3);
  EXPECT_EQ(run({"go"}, [] { throw checkpoint_error("x"); }).code, 4);
  EXPECT_EQ(run({"go"}, [] { throw Error(ExitCode::diverged, "x"); }).code, 5);
  const Outcome internal = run({"go"}, [] { throw std::out_of_range("vector"); });
  EXPECT_EQ(internal.code, 1);
  EXPECT_EQ(internal.errors, "caravan: error: internal: vector\n");
  EXPECT_EQ(run({"go"}, [] { throw std::bad_alloc(); }).code, 1);
}

TEST(CommandLine, AnInterruptionIsNoError) {
  const Outcome outcome = run({"go"}, [] { throw Error(ExitCode::interrupted, "saved step 7"); });
  EXPECT_EQ(outcome.code, 75);
  EXPECT_EQ(outcome.errors, "caravan: saved step 7\n");
}

TEST(CommandLine, UsageErrorsHaveCodeTwo) {
  const Outcome unknown = run({"goo"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_EQ(unknown.errors, "caravan: error: unknown command 'goo'; did you mean 'go'?\n");
  EXPECT_EQ(run({}).code, 2);
  EXPECT_EQ(run({"go", "--fast"}).errors,
            "caravan: error: The following argument was not expected: --fast; see caravan go "
            "--help\n");
}

TEST(CommandLine, HelpIsNoError) {
  const Outcome outcome = run({"--help"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.output.find("goes"), std::string::npos);
}

}  // namespace
}  // namespace caravan
