// Learning rate as a function of the step. It is an input of the update program, so nothing here
// is compiled into a Program and nothing of it needs saving.
#pragma once

#include <cstdint>

namespace caravan {

enum class LrScheduleKind : uint8_t {
  constant,  // stays at the peak
  linear,    // falls in a straight line from the end of warmup to the last step
  cosine,    // falls as half a cosine wave over the same steps
  wsd,       // warmup, stable, decay: stays, then falls in a straight line in the last steps
};

struct LrSchedule {
  LrScheduleKind kind = LrScheduleKind::cosine;
  double peak = 1e-3;
  double min_ratio = 0.1;    // of the peak, reached at the last step
  int64_t warmup_steps = 0;  // rises in a straight line: peak * step / warmup_steps
  int64_t decay_steps = 0;   // of wsd
  int64_t max_steps = 1;
};

// `step` counts from 1. Beyond max_steps the rate stays where it ended.
double learning_rate(const LrSchedule& schedule, int64_t step);

}  // namespace caravan
