#include "launch/rolling_statistics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/training_state.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

RollingStatistics full_window() {
  RollingStatistics statistics;
  for (size_t i = 0; i < RollingStatistics::kWindow; ++i) {
    EXPECT_FALSE(statistics.add(i % 2 == 0 ? 3.0 : 5.0)) << i;
  }
  return statistics;
}

TEST(RollingStatistics, DistanceInStandardDeviations) {
  RollingStatistics statistics = full_window();  // mean 4, deviation 1
  EXPECT_DOUBLE_EQ(*statistics.add(10.0), 6.0);
  EXPECT_EQ(statistics.values().size(), RollingStatistics::kWindow);
  EXPECT_EQ(statistics.values().front(), 5.0);  // the oldest went
  EXPECT_EQ(statistics.values().back(), 10.0);
  EXPECT_LT(*statistics.add(2.0), 0);
}

TEST(RollingStatistics, WhatIsNotFiniteDoesNotCount) {
  RollingStatistics statistics = full_window();
  const std::vector<double> before = statistics.values();
  EXPECT_FALSE(statistics.add(NAN));
  EXPECT_FALSE(statistics.add(INFINITY));
  EXPECT_EQ(statistics.values(), before);
}

TEST(RollingStatistics, NothingIsUnusualWithoutSpread) {
  RollingStatistics statistics;
  for (size_t i = 0; i < 2 * RollingStatistics::kWindow; ++i) EXPECT_FALSE(statistics.add(1.0));
}

// Stopped anywhere and restored, it goes on with the same bits.
TEST(RollingStatistics, RestoredIsTheSame) {
  const RandomStream random(3, RandomPurpose::test, 0);
  TrainingState state;
  for (uint64_t i = 0; i < 300; ++i) {
    CheckpointHeader header;
    store(state, header);
    TrainingState restored = restore(header);
    const double value = random.normal(i);
    EXPECT_EQ(state.losses.add(value), restored.losses.add(value)) << i;
    EXPECT_EQ(state.losses.values(), restored.losses.values()) << i;
  }
}

TEST(TrainingState, AllOfItComesBack) {
  TrainingState state{.run_id = "r", .step = 9, .tokens = 90};
  state.skipped_steps = 4;
  state.skipped_in_row = 2;
  state.loss = 1.5;
  state.validation_loss = 2.5;
  state.losses.add(7);
  state.grad_norms.add(8);
  CheckpointHeader header;
  store(state, header);
  const TrainingState back = restore(header);
  EXPECT_EQ(back.run_id, "r");
  EXPECT_EQ(back.step, 9);
  EXPECT_EQ(back.tokens, 90);
  EXPECT_EQ(back.num_updates(), 5);
  EXPECT_EQ(back.skipped_in_row, 2);
  EXPECT_EQ(back.loss, 1.5);
  EXPECT_EQ(back.validation_loss, 2.5);
  EXPECT_EQ(back.losses.values(), std::vector<double>{7});
  EXPECT_EQ(back.grad_norms.values(), std::vector<double>{8});
}

}  // namespace
}  // namespace caravan
