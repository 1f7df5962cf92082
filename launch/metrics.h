// What is known of one step, and the file that keeps it: metrics.jsonl, one object a line.
// Rank 0 only; one thread. A line is one write(2), so a killed run leaves whole lines.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "launch/router_metrics.h"

namespace caravan {

struct StepMetrics {
  int64_t step = 0;  // counted from 1
  int64_t max_steps = 0;
  double time_seconds = 0;  // of day, since 1970
  double loss = 0;          // mean over the valid tokens of all ranks
  double grad_norm = 0;     // before clipping
  // z-scores over the last 128 steps; absent before there are as many.
  std::optional<double> loss_z;
  std::optional<double> grad_norm_z;
  double learning_rate = 0;
  int64_t tokens = 0;  // so far, over all ranks
  double step_ms = 0;
  double tokens_per_second = 0;  // over all ranks
  std::optional<double> mfu;     // share of the peak of the device, 0 to 1; absent: not known
  int64_t memory_bytes = 0;      // held by this rank
  int64_t memory_limit_bytes = 0;
  std::optional<double> data_ms;  // waiting for data
  std::optional<double> save_ms;  // waiting for checkpoints
  std::optional<double> forward_ms;
  std::optional<double> comm_ms;  // waiting for communication
  double eta_seconds = 0;
  int64_t skipped_steps = 0;               // so far, for a loss or gradient that was not finite
  const RouterMetrics* routers = nullptr;  // of a mixture of experts; outlives the line
};

// From this z-score on, a loss or gradient norm is a spike: about once in a million steps by
// chance.
inline constexpr double kSpike = 5;
bool is_spike(const std::optional<double>& z);

// The line of a step, without the line break. What is not finite or absent is null or left out.
// Of a mixture of experts, arrays with a number for each group of layers (launch/router_metrics.h):
// moe_first_layer, moe_load_max_mean, moe_passes, moe_dropped, moe_dropped_share, moe_dead.
// `line` is written anew and keeps its memory.
void metrics_line(const StepMetrics& metrics, std::string& line);

class MetricsFile {
 public:
  // Opens for appending, and creates. Throws a config error with the path and the reason.
  explicit MetricsFile(const std::string& path);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  void step(const StepMetrics& metrics);
  void evaluation(int64_t step, double loss);
  void resume(int64_t step);  // of the lines before it, those after `step` no longer count

  // Why the last line could not be written, "" when it was. Such lines are lost: metrics are no
  // reason to end a run.
  const std::string& error() const { return error_; }

 private:
  void append_line();

  std::string path_;
  int descriptor_;
  bool inside_line_;  // a line without its end stands last
  std::string line_;  // that was written last
  std::string error_;
};

}  // namespace caravan
