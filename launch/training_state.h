// What the trainer knows beside the tensors. All of it is in every checkpoint, so that a resumed
// run goes on as if it had never stopped; all other state is a function of the configuration and
// step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "checkpoint/manifest.h"
#include "launch/rolling_statistics.h"

namespace caravan {

inline constexpr char kDataIdentity[] = "data";  // of CheckpointHeader::texts

struct TrainingState {
  std::string run_id;
  int64_t step = 0;                 // steps done, those skipped with them
  int64_t tokens = 0;               // trained on, over all ranks
  int64_t skipped_steps = 0;        // whose update was skipped
  int64_t skipped_in_row = 0;       // of them, since the last update
  std::optional<double> loss = {};  // of the last step
  std::optional<double> validation_loss = {};
  RollingStatistics losses = {};
  RollingStatistics grad_norms = {};

  int64_t num_updates() const { return step - skipped_steps; }
};

void store(const TrainingState& state, CheckpointHeader& header);
TrainingState restore(const CheckpointHeader& header);  // a checkpoint error names what is missing

}  // namespace caravan
