// How much of a run's time went into training steps that count in the end, read from
// metrics.jsonl. A crash costs the steps since the last checkpoint: after a line
// {"event":"resume","step":n} the lines before it with higher steps no longer count.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace caravan {

struct StepTimes {
  int64_t num_kept = 0;                   // steps
  double kept_seconds = 0;                // the sum of their step_ms
  double lost_seconds = 0;                // of steps that were done again or never saved
  std::optional<int64_t> last_step = {};  // that was done, kept or not
};

// Size of the file, 0 when there is none: the place from which later lines are new.
int64_t metrics_bytes(const std::string& metrics_path);

// From the lines that begin at `from_byte` or after. Steps beyond `committed` (the step of the
// newest checkpoint) are lost; absent, all last occurrences are kept. Lines that are no JSON, such
// as one that a killed writer tore, are passed over. A missing file has no steps.
StepTimes read_step_times(const std::string& metrics_path, int64_t from_byte,
                          std::optional<int64_t> committed = std::nullopt);

// kept_seconds of wall_seconds: "93.4 % (280.1 s of training steps that were kept in 300.0 s)".
std::string describe_effective_time(const StepTimes& times, double wall_seconds);

}  // namespace caravan
