// Who hangs, judged over made-up beats and a made-up clock.
#include "launch/judge.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

constexpr double kLimit = 10;
constexpr double kTick = 0.25;

// Ranks whose beats a test controls. Every tick they all beat, move and are judged, but for what
// the test has changed.
struct Job {
  explicit Job(int num_ranks, int self = 0)
      : judge({.num_ranks = num_ranks, .self = self, .limit_seconds = kLimit}, 0),
        beats(static_cast<size_t>(num_ranks)),
        beats_at_all(static_cast<size_t>(num_ranks), true),
        moves(static_cast<size_t>(num_ranks), true) {
    for (Beat& beat : beats) beat.position.phase = Phase::computing;
  }

  std::optional<Verdict> tick() {
    now += kTick;
    for (size_t i = 0; i < beats.size(); ++i) {
      if (moves[i]) ++beats[i].position.moves;
      if (beats_at_all[i]) judge.hear(static_cast<int>(i), beats[i], now);
    }
    return judge.judge(now);
  }
  // The first verdict within so many seconds.
  std::optional<Verdict> run(double seconds) {
    const double until = now + seconds;
    while (now < until) {
      if (auto verdict = tick()) return verdict;
    }
    return {};
  }
  void wait_in(int rank, int op) {
    beats[static_cast<size_t>(rank)].position.waits_for = op;
    beats[static_cast<size_t>(rank)].position.program = 0;
    moves[static_cast<size_t>(rank)] = false;
  }

  Judge judge;
  std::vector<Beat> beats;
  std::vector<bool> beats_at_all;
  std::vector<bool> moves;
  double now = 0;
};

void expect_verdict(const std::optional<Verdict>& verdict, Verdict::Kind kind, int rank) {
  ASSERT_TRUE(verdict.has_value());
  EXPECT_EQ(verdict->kind, kind);
  EXPECT_EQ(verdict->rank, rank);
  EXPECT_GE(verdict->seconds, kLimit);
  EXPECT_LE(verdict->seconds, kLimit + 3);
}

TEST(Judge, RanksThatMoveAreWell) { EXPECT_FALSE(Job(4).run(100)); }

TEST(Judge, ASilentRank) {
  Job job(4);
  job.run(5);
  job.beats_at_all[2] = false;
  EXPECT_FALSE(job.run(kLimit - kTick));
  expect_verdict(job.run(1), Verdict::Kind::silent, 2);
}

// It was stopped while it waited: that excuses nobody.
TEST(Judge, ASilentRankThatWaitedWhileAllWait) {
  Job job(3);
  for (int rank = 0; rank < 3; ++rank) job.wait_in(rank, 7);
  job.tick();
  job.beats_at_all[1] = false;
  expect_verdict(job.run(2 * kLimit), Verdict::Kind::silent, 1);
}

TEST(Judge, ARankThatComputesForEver) {
  Job job(4);
  job.run(5);
  for (const int rank : {0, 2, 3}) job.wait_in(rank, 12);
  job.moves[1] = false;
  EXPECT_FALSE(job.run(kLimit - 2 * kTick));
  expect_verdict(job.run(1), Verdict::Kind::stuck, 1);
}

TEST(Judge, ADiskMayTakeLonger) {
  Job job(3);
  job.wait_in(0, kWaitsForControlPlane);
  job.wait_in(2, kWaitsForControlPlane);
  job.beats[1].position.phase = Phase::saving;
  job.moves[1] = false;
  EXPECT_FALSE(job.run(10 * kLimit - 2 * kTick));
  const auto verdict = job.run(1);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->rank, 1);
}

TEST(Judge, RankZeroJudgesItselfToo) {
  Job job(2);
  job.wait_in(1, 12);
  job.moves[0] = false;
  expect_verdict(job.run(2 * kLimit), Verdict::Kind::stuck, 0);
}

TEST(Judge, WaitingForARankThatMovesIsWell) {
  Job job(3);
  job.wait_in(0, 3);
  job.wait_in(2, kWaitsForControlPlane);
  EXPECT_FALSE(job.run(100));
}

TEST(Judge, WaitingForDifferentThings) {
  Job job(4);
  for (const int rank : {0, 1, 3}) job.wait_in(rank, 20);
  job.wait_in(2, 40);
  EXPECT_FALSE(job.run(kLimit - kTick));
  expect_verdict(job.run(1), Verdict::Kind::deadlock, 2);
}

TEST(Judge, AllWaitForTheSameAndNoMessageComes) {
  Job job(3);
  for (int rank = 0; rank < 3; ++rank) job.wait_in(rank, 20);
  expect_verdict(job.run(2 * kLimit), Verdict::Kind::deadlock, 0);
}

TEST(Judge, AJobThatWasSuspendedBeginsAnew) {
  Job job(3);
  job.run(9);
  job.beats_at_all[1] = false;
  job.run(9);
  job.now += 1000;  // stopped, and continued
  EXPECT_FALSE(job.tick());
  EXPECT_FALSE(job.run(kLimit - kTick));
  expect_verdict(job.run(1), Verdict::Kind::silent, 1);
}

// Without the pause between them, the same beats are a verdict.
TEST(Judge, ALongSilenceIsNoPause) {
  Job job(3);
  job.beats_at_all[1] = false;
  EXPECT_TRUE(job.run(18));
}

TEST(Judge, LongStepsMakeTheLimitLonger) {
  Job job(2);
  for (int step = 1; step <= 4; ++step) {
    for (Beat& beat : job.beats) beat.position.step = step;
    EXPECT_FALSE(job.run(3));
  }
  EXPECT_NEAR(job.judge.limit(), 30, 1);
  job.beats_at_all[1] = false;
  EXPECT_FALSE(job.run(29 - kTick));
  EXPECT_TRUE(job.run(3));
}

TEST(Judge, ShortStepsDoNotMakeItShorter) {
  Job job(2);
  for (int i = 0; i < 50; ++i) {
    for (Beat& beat : job.beats) beat.position.step += 40;
    EXPECT_FALSE(job.tick());
  }
  EXPECT_EQ(job.judge.limit(), kLimit);
  EXPECT_EQ(job.judge.step(), 2000);
}

TEST(Judge, WhoIsLeavingWaitsForTheOthers) {
  Job job(3);
  job.beats[1].life = Beat::Life::leaving;
  job.moves[1] = false;
  EXPECT_FALSE(job.run(100)) << "the others still save";
  EXPECT_FALSE(job.judge.all_are_leaving());
  job.beats[2].life = Beat::Life::leaving;
  job.tick();
  EXPECT_TRUE(job.judge.all_are_leaving());
}

TEST(Judge, LeavingWhileOthersWaitIsADeadlock) {
  Job job(3);
  job.wait_in(0, 5);
  job.wait_in(2, 5);
  job.beats[1].life = Beat::Life::leaving;
  job.moves[1] = false;
  expect_verdict(job.run(2 * kLimit), Verdict::Kind::deadlock, 1);
}

// Ranks other than 0 hear of rank 0 alone, and give it time to speak first.
TEST(Judge, OthersJudgeTheSilenceOfRankZero) {
  for (const int self : {1, 3}) {
    Job job(4, self);
    for (size_t other = 1; other < 4; ++other) {
      job.beats_at_all[other] = static_cast<int>(other) == self;
    }
    EXPECT_FALSE(job.run(50)) << "only rank 0 is theirs to judge";
    job.moves[0] = false;
    EXPECT_FALSE(job.run(50)) << "rank 0 would say so itself";
    job.beats_at_all[0] = false;
    EXPECT_FALSE(job.run(kLimit + 0.5 * self - kTick));
    expect_verdict(job.run(1), Verdict::Kind::silent, 0);
  }
}

}  // namespace
}  // namespace caravan
