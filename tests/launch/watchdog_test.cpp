// Watchdogs of ranks that are threads: what they find, what they say, how they end.
#include "launch/watchdog.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <future>

#include "runtime/builder.h"
#include "tests/support/memory_heartbeat.h"
#include "tests/support/program_runner.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);  // of the test; a verdict takes two

Program reducing_program() {
  Program program;
  program.name = "update";
  Builder b(program.graph);
  const auto scope = b.scope("layers", 1);
  const Val x = b.input("x", {16}, DType::f32);
  b.one(AllReduce{Axis::dp}, {b.add(x, x)});
  program.steps = {{.node = NodeId{0}}, {.node = NodeId{1}}};
  return program;
}

// One watchdog per rank; places that no process has, but where a test says so.
class Watchdogs : public testing::Test {
 protected:
  static constexpr int kRanks = 3;

  Watchdogs() : programs_{reducing_program()}, board_(kRanks), progress_(kRanks) {
    for (int rank = 0; rank < kRanks; ++rank) {
      places_.push_back({.host = "n" + std::to_string(rank), .pid = 100 + rank});
    }
    for (Progress& progress : progress_) {
      progress.enter(Phase::computing);
      progress.begin_step(17);
      progress.begin_program(0);
      progress.begin_op(0);
    }
  }

  std::unique_ptr<Watchdog> watch(int rank) {
    WatchdogSetup setup{.heartbeat = board_.connect(rank),
                        .places = places_,
                        .progress = progress_[static_cast<size_t>(rank)],
                        .programs = programs_};
    setup.limit_seconds = limit_seconds_;
    setup.is_ending = [this] { return is_ending_.load(); };
    setup.on_failure = [this](const Failure& failure) {
      if (!has_found_.exchange(true)) found_.set_value(failure);
    };
    return std::make_unique<Watchdog>(std::move(setup));
  }

  Failure found() {
    auto future = found_.get_future();
    if (future.wait_for(kPatience) != std::future_status::ready) {
      ADD_FAILURE() << "nothing was found";
      return {};
    }
    return future.get();
  }
  static void expect_says(const Failure& failure, const std::vector<std::string>& parts) {
    for (const std::string& part : parts) {
      EXPECT_NE(failure.message.find(part), std::string::npos)
          << "no '" << part << "' in: " << failure.message;
    }
  }

  double limit_seconds_ = 1.5;  // more than a busy machine holds a thread up
  std::vector<Program> programs_;
  HeartbeatSwitchboard board_;
  std::vector<Progress> progress_;
  std::vector<RankPlace> places_;
  std::atomic<bool> is_ending_{false};
  std::atomic<bool> has_found_{false};
  std::promise<Failure> found_;
};

TEST_F(Watchdogs, AStuckRankIsNamedWithWhatTheOthersWaitFor) {
  progress_[0].wait_for(1);
  progress_[2].wait_for(1);
  const auto zero = watch(0), one = watch(1), two = watch(2);
  const Failure failure = found();
  EXPECT_EQ(failure.rank, 1);
  EXPECT_EQ(failure.host, "n1");
  EXPECT_EQ(failure.step, 17);
  EXPECT_EQ(failure.phase, "computing");
  EXPECT_EQ(failure.exit_code, ExitCode::peer_lost);
  expect_says(failure, {"rank 1 (host n1, pid 101) hangs", "step 17, phase computing, op 0: add",
                        "ranks 0 and 2 wait in all_reduce [layers.1] of program 'update'"});
}

// Inside what was recorded nobody knows the op.
TEST_F(Watchdogs, RecordedOpsAreNamedByTheirProgram) {
  for (Progress& progress : progress_) progress.begin_op(kRecordedOps);
  progress_[0].wait_for(kWaitsForProgram);
  progress_[2].wait_for(kWaitsForProgram);
  const auto zero = watch(0), one = watch(1), two = watch(2);
  expect_says(found(), {"rank 1 (host n1, pid 101) hangs",
                        "step 17, phase computing, program 'update'; ranks 0 and 2 wait in a "
                        "collective of program 'update'"});
}

TEST_F(Watchdogs, WaitingForDifferentThingsNamesBoth) {
  progress_[0].wait_for(1);
  progress_[1].wait_for(1);
  progress_[2].wait_for(kWaitsForControlPlane);
  const auto zero = watch(0), one = watch(1), two = watch(2);
  const Failure failure = found();
  EXPECT_EQ(failure.rank, 2);
  const size_t odd = failure.message.find("rank 2 (host n2, pid 102) in a barrier");
  const size_t others = failure.message.find("ranks 0 and 1 in all_reduce");
  ASSERT_NE(odd, std::string::npos) << failure.message;
  ASSERT_NE(others, std::string::npos) << failure.message;
  EXPECT_LT(odd, others);
}

TEST_F(Watchdogs, RankOneNamesASilentRankZero) {
  for (Progress& progress : progress_) progress.wait_for(1);
  const auto one = watch(1), two = watch(2);
  const Failure failure = found();
  EXPECT_EQ(failure.rank, 0);
  expect_says(failure, {"rank 0 (host n0, pid 100) gives no sign of life"});
}

TEST_F(Watchdogs, ADeadProcessOfThisMachineIsNoticedAtOnce) {
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  std::vector<RankPlace> real;
  run_ranks(1, [&](Communicator& world) { real = gather_places(world, "n"); });
  places_[0] = places_[1] = real[0];
  places_[1].pid = child;
  std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
  std::string field;
  for (int i = 0; i < 22; ++i) stat >> field;  // the name of this program has no spaces
  places_[1].start_time = field;
  ASSERT_EQ(LocalPeers(places_, 0).count(), 1);
  const auto zero = watch(0);
  kill(child, SIGKILL);
  const Failure failure = found();
  waitpid(child, nullptr, 0);
  EXPECT_EQ(failure.rank, 1);
  expect_says(failure, {"rank 1", "pid " + std::to_string(child), "died in step 17"});
}

TEST_F(Watchdogs, AnotherProcessOfThatPidIsNoPeer) {
  std::vector<RankPlace> real;
  run_ranks(1, [&](Communicator& world) { real = gather_places(world, "n"); });
  std::vector<RankPlace> places = {real[0], real[0]};
  EXPECT_EQ(LocalPeers(places, 0).count(), 1);
  places[1].start_time = "1";
  EXPECT_EQ(LocalPeers(places, 0).count(), 0);
  places[1] = real[0];
  places[1].machine = "another";
  EXPECT_EQ(LocalPeers(places, 0).count(), 0);
}

// The slowest rank comes to its end much later than the limit, and moves until then.
TEST_F(Watchdogs, GoodbyeWaitsForTheSlowest) {
  std::vector<std::unique_ptr<Watchdog>> dogs;
  for (int rank = 0; rank < kRanks; ++rank) dogs.push_back(watch(rank));
  std::atomic<int> num_ended = 0;
  std::vector<std::jthread> ends;
  for (const int rank : {0, 2}) {
    ends.emplace_back([&, rank] {
      dogs[static_cast<size_t>(rank)]->finish();
      ++num_ended;
    });
  }
  for (int i = 0; i < 30; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    progress_[1].moved();
    EXPECT_EQ(num_ended, 0);
  }
  dogs[1]->finish();
  ends.clear();
  EXPECT_FALSE(has_found_);
}

TEST_F(Watchdogs, SilentOnceThisProcessIsToldToEnd) {
  is_ending_ = true;
  auto zero = watch(0);
  zero->finish();  // returns although nobody answers
  EXPECT_FALSE(has_found_);
}

}  // namespace
}  // namespace caravan
