// Learning rates against numbers worked out by hand.
#include "optim/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace caravan {
namespace {

LrSchedule schedule_of(LrScheduleKind kind) {
  return {.kind = kind,
          .peak = 1e-3,
          .min_ratio = 0.1,
          .warmup_steps = 10,
          .decay_steps = 20,
          .max_steps = 110};
}

void expect_rates(LrScheduleKind kind, std::initializer_list<std::pair<int64_t, double>> rates) {
  for (const auto& [step, rate] : rates) {
    EXPECT_NEAR(learning_rate(schedule_of(kind), step), rate, 1e-15) << "step " << step;
  }
}

TEST(LrSchedule, WarmupIsAStraightLineToThePeak) {
  for (const LrScheduleKind kind : {LrScheduleKind::constant, LrScheduleKind::linear,
                                    LrScheduleKind::cosine, LrScheduleKind::wsd}) {
    expect_rates(kind, {{1, 1e-4}, {5, 5e-4}, {9, 9e-4}, {10, 1e-3}});
  }
}

TEST(LrSchedule, Constant) {
  expect_rates(LrScheduleKind::constant, {{11, 1e-3}, {60, 1e-3}, {110, 1e-3}, {500, 1e-3}});
}

TEST(LrSchedule, LinearEndsAtTheMinimum) {
  expect_rates(LrScheduleKind::linear,
               {{11, 9.91e-4}, {35, 7.75e-4}, {60, 5.5e-4}, {110, 1e-4}, {500, 1e-4}});
}

TEST(LrSchedule, CosineIsHalfAWave) {
  const double quarter = 1e-4 + 9e-4 * (0.5 + 0.5 * std::sqrt(0.5));
  expect_rates(LrScheduleKind::cosine,
               {{35, quarter}, {60, 5.5e-4}, {85, 1.1e-3 - quarter}, {110, 1e-4}, {500, 1e-4}});
}

TEST(LrSchedule, WsdFallsInItsLastSteps) {
  expect_rates(LrScheduleKind::wsd,
               {{11, 1e-3}, {90, 1e-3}, {95, 7.75e-4}, {100, 5.5e-4}, {110, 1e-4}, {500, 1e-4}});
}

TEST(LrSchedule, WorksWithoutWarmupAndWithoutRoom) {
  const LrSchedule one_step{.kind = LrScheduleKind::cosine, .peak = 1, .max_steps = 1};
  EXPECT_DOUBLE_EQ(learning_rate(one_step, 1), 0.1);
  LrSchedule all_warmup = schedule_of(LrScheduleKind::linear);
  all_warmup.warmup_steps = all_warmup.max_steps;
  EXPECT_DOUBLE_EQ(learning_rate(all_warmup, 110), 1e-3);
  LrSchedule no_decay = schedule_of(LrScheduleKind::wsd);
  no_decay.decay_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate(no_decay, 109), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(no_decay, 110), 1e-4);
}

}  // namespace
}  // namespace caravan
