#include "optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace caravan {
namespace {

// How far the step is from `begin` (0) to `end` (1).
double progress(int64_t step, int64_t begin, int64_t end) {
  if (end <= begin) return step >= end ? 1.0 : 0.0;
  return std::clamp(static_cast<double>(step - begin) / static_cast<double>(end - begin), 0.0, 1.0);
}

// The share of the way from the minimum to the peak, after warmup.
double height(const LrSchedule& s, int64_t step) {
  switch (s.kind) {
    case LrScheduleKind::constant:
      return 1.0;
    case LrScheduleKind::linear:
      return 1.0 - progress(step, s.warmup_steps, s.max_steps);
    case LrScheduleKind::cosine:
      return 0.5 + 0.5 * std::cos(std::numbers::pi * progress(step, s.warmup_steps, s.max_steps));
    case LrScheduleKind::wsd:
      return 1.0 - progress(step, s.max_steps - s.decay_steps, s.max_steps);
  }
  return 1.0;
}

}  // namespace

double learning_rate(const LrSchedule& s, int64_t step) {
  if (step <= s.warmup_steps) {
    return s.peak * static_cast<double>(step) / static_cast<double>(s.warmup_steps);
  }
  const double minimum = s.peak * s.min_ratio;
  return minimum + (s.peak - minimum) * height(s, step);
}

}  // namespace caravan
