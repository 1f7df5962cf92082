// The step line, letter by letter; what is shown on a terminal and in a file.
#include "launch/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "runtime/builder.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

constexpr int64_t kGibibyte = 1 << 30;

StepMetrics large_run() {
  StepMetrics m;
  m.step = 1200;
  m.max_steps = 10000;
  m.loss = 2.41308;
  m.grad_norm = 0.8724;
  m.learning_rate = 2.94e-4;
  m.step_ms = 412.3;
  m.tokens_per_second = 159012.4;
  m.mfu = 0.412;
  m.memory_bytes = static_cast<int64_t>(61.3 * kGibibyte);
  m.memory_limit_bytes = 80 * kGibibyte;
  m.eta_seconds = 3725;
  return m;
}

TEST(Log, StepLineOfALargeRun) {
  EXPECT_EQ(step_line(large_run()),
            "step 1200/10000 12.0% | loss 2.4131 | gnorm 0.872 | lr 2.94e-04 | 412 ms | "
            "159,012 tok/s | mfu 41.2% | mem 61.3/80.0 GiB | eta 1h02m");
}

TEST(Log, StepLineWithoutWhatIsNotKnown) {
  StepMetrics m = large_run();
  m.step = 10000;
  m.mfu.reset();
  m.memory_bytes = kGibibyte / 4;
  m.memory_limit_bytes = 0;
  m.eta_seconds = 0;
  m.loss = std::nan("");
  m.skipped_steps = 2;
  EXPECT_EQ(step_line(m),
            "step 10000/10000 100.0% | loss nan | gnorm 0.872 | lr 2.94e-04 | 412 ms | "
            "159,012 tok/s | mem 0.25 GiB | eta 0s | skip 2");
}

RouterMetrics routers_of(const std::vector<float>& load, float dropped, float further) {
  Graph graph;
  Builder b(graph);
  const auto experts = static_cast<int64_t>(load.size());
  b.output("router.1.load", b.input("load", {experts}, DType::f32));
  RouterMetrics routers(graph, 2);
  routers.sums()[0].load = load;
  routers.sums()[0].dropped = dropped;
  routers.sums()[0].further = further;
  routers.update();
  return routers;
}

TEST(Log, WhatRoutersDid) {
  StepMetrics m = large_run();
  const std::string plain = step_line(m);
  const auto with = [&](const RouterMetrics& routers) {
    m.routers = &routers;
    std::string line = step_line(m);
    const size_t begin = line.find(" | moe"), end = line.find(" | eta");
    const std::string part = line.substr(begin, end - begin);
    EXPECT_EQ(line.erase(begin, end - begin), plain);
    return part;
  };
  EXPECT_EQ(with(routers_of({131, 69}, 0, 0)), " | moe max/mean 1.31 passes 1.00");
  EXPECT_EQ(with(routers_of({200, 200, 0, 600}, 4, 1)),
            " | moe max/mean 2.40 passes 1.50 dropped 0.4% dead 1");
  EXPECT_EQ(with(routers_of({50'000, 50'000}, 4, 0)),
            " | moe max/mean 1.00 passes 1.00 dropped 0.004%");
  const RouterMetrics none;
  m.routers = &none;
  EXPECT_EQ(step_line(m), plain);
}

TEST(Log, SpikesAreNamedAtTheEnd) {
  StepMetrics m = large_run();
  const std::string calm = step_line(m);
  m.loss_z = 4.99;
  m.grad_norm_z = -9;  // a fall is none
  EXPECT_EQ(step_line(m), calm);
  m.loss_z = 5.04;
  m.grad_norm_z = 123.45;
  m.skipped_steps = 1;
  EXPECT_EQ(step_line(m), calm + " | skip 1 | loss spike +5.0z | gnorm spike +123.5z");
}

TEST(Log, NumbersForPeople) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
  EXPECT_EQ(format_count(-123), "-123");
  EXPECT_EQ(format_duration(0.4), "0s");
  EXPECT_EQ(format_duration(185), "3m05s");
  EXPECT_EQ(format_duration(3599.6), "1h00m");
  EXPECT_EQ(format_duration(86400 * 2 + 3 * 3600), "2d03h");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(format_milliseconds(4.12), "4.1 ms");
  EXPECT_EQ(format_milliseconds(12345), "12.3 s");
  EXPECT_EQ(format_parameters(10'240'000), "10.2 M");
  EXPECT_EQ(format_parameters(8'030'000'000), "8.03 B");
  EXPECT_EQ(format_parameters(1024), "1,024");
}

// What a console writes, through a pipe.
class ConsoleTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(pipe(ends_), 0); }
  void TearDown() override {
    close(ends_[0]);
    close(ends_[1]);
  }

  ConsoleOptions options(bool is_terminal, bool has_colour = false) {
    return {.descriptor = ends_[1],
            .columns = is_terminal ? 80 : 0,
            .has_colour = has_colour,
            .logging_steps = 10,
            .seconds_now = [this] { return now_; }};
  }

  std::string written() {
    std::string text(65536, '\0');
    if (write(ends_[1], ".", 1) != 1) return "";  // so that the read never blocks
    text.resize(static_cast<size_t>(read(ends_[0], text.data(), text.size())));
    text.pop_back();
    return text;
  }

  static StepMetrics step(int64_t number) {
    StepMetrics m = large_run();
    m.step = number;
    m.max_steps = 25;
    return m;
  }

  int ends_[2] = {-1, -1};
  double now_ = 100;
};

TEST_F(ConsoleTest, AFileGetsWholeLinesFirstEveryTenthAndLast) {
  Console console(options(false));
  for (int i = 1; i <= 25; ++i) console.step(step(i));
  EXPECT_EQ(written(), step_line(step(1)) + "\n" + step_line(step(10)) + "\n" +
                           step_line(step(20)) + "\n" + step_line(step(25)) + "\n");
}

TEST_F(ConsoleTest, AFileGetsTheFirstStepAfterAResume) {
  Console console(options(false));
  console.step(step(13));
  console.step(step(14));
  EXPECT_EQ(written(), step_line(step(13)) + "\n");
}

TEST_F(ConsoleTest, ATerminalGetsOneLiveLine) {
  {
    Console console(options(true));
    console.step(step(1));
    EXPECT_EQ(written(), "\r" + step_line(step(1)).substr(0, 79) + "\x1b[K");
    console.step(step(2));  // too soon to redraw
    EXPECT_EQ(written(), "");
    now_ += 1;
    console.step(step(3));
    EXPECT_EQ(written(), "\r" + step_line(step(3)).substr(0, 79) + "\x1b[K");
    console.line("eval");
    EXPECT_EQ(written(), "\neval\n");
    now_ += 1;
    console.step(step(4));
    written();
  }
  EXPECT_EQ(written(), "\n");
}

TEST_F(ConsoleTest, ColourIsOnlyOnTheLoss) {
  Console console(options(true, true));
  console.step(step(1));
  EXPECT_NE(written().find("| \x1b[1;32mloss 2.4131\x1b[0m |"), std::string::npos);
}

TEST_F(ConsoleTest, AWideTerminalGetsTheWholeLine) {
  ConsoleOptions wide = options(true);
  wide.columns = 200;
  Console console(wide);
  console.step(step(1));
  EXPECT_EQ(written(), "\r" + step_line(step(1)) + "\x1b[K");
}

TEST_F(ConsoleTest, ADumbTerminalGetsWholeLines) {
  {
    const ScopedVariable dumb("TERM", "dumb");
    EXPECT_FALSE(terminal_moves_cursor());
    EXPECT_EQ(console_options(10).columns, 0);
    EXPECT_FALSE(console_options(10).has_colour);
  }
  const ScopedVariable full("TERM", "xterm");
  EXPECT_TRUE(terminal_moves_cursor());
}

TEST_F(ConsoleTest, WarnsOnceAMinutePerKind) {
  Console console(options(false));
  console.warn("data", "loading takes 18 % of the step");
  console.warn("data", "loading takes 19 % of the step");
  console.warn("disk", "almost full");
  now_ += 61;
  console.warn("data", "loading takes 20 % of the step");
  EXPECT_EQ(written(),
            "warning: loading takes 18 % of the step\nwarning: almost full\n"
            "warning: loading takes 20 % of the step\n");
}

TEST_F(ConsoleTest, AlignsTheTable) {
  Console console(options(false));
  console.table({{"model", "llama, 10.2 M parameters"}, {"steps", "300"}});
  EXPECT_EQ(written(),
            "| parameter | value                    |\n"
            "|-----------|--------------------------|\n"
            "| model     | llama, 10.2 M parameters |\n"
            "| steps     | 300                      |\n");
}

}  // namespace
}  // namespace caravan
