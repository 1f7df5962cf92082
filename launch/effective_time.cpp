#include "launch/effective_time.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"

namespace caravan {
namespace {

// What follows a step that is gone: the steps beyond it were not kept.
void drop_beyond(std::map<int64_t, double>& milliseconds, int64_t step, StepTimes& times) {
  const auto first = milliseconds.upper_bound(step);
  for (auto dropped = first; dropped != milliseconds.end(); ++dropped) {
    times.lost_seconds += dropped->second / 1e3;
  }
  milliseconds.erase(first, milliseconds.end());
}

void add_line(const nlohmann::json& line, std::map<int64_t, double>& milliseconds,
              StepTimes& times) {
  if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) return;
  const int64_t step = line["step"];
  if (line.contains("event")) {
    if (line["event"] == "resume") drop_beyond(milliseconds, step, times);
    return;
  }
  if (!line.contains("step_ms") || !line["step_ms"].is_number()) return;
  drop_beyond(milliseconds, step - 1, times);
  milliseconds[step] = line["step_ms"];
  times.last_step = step;
}

}  // namespace

int64_t metrics_bytes(const std::string& metrics_path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(metrics_path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

StepTimes read_step_times(const std::string& metrics_path, int64_t from_byte,
                          std::optional<int64_t> committed) {
  StepTimes times;
  std::map<int64_t, double> milliseconds;  // of each step that counts so far
  // A file that somebody replaced by a shorter one is new from its start.
  const bool is_replaced = metrics_bytes(metrics_path) < from_byte;
  std::ifstream file(metrics_path);
  file.seekg(is_replaced ? 0 : from_byte);
  for (std::string line; std::getline(file, line);) {
    add_line(nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false), milliseconds, times);
  }
  if (committed) drop_beyond(milliseconds, *committed, times);
  for (const auto& [step, duration] : milliseconds) times.kept_seconds += duration / 1e3;
  times.num_kept = static_cast<int64_t>(milliseconds.size());
  return times;
}

std::string describe_effective_time(const StepTimes& times, double wall_seconds) {
  const double share = wall_seconds > 0 ? times.kept_seconds / wall_seconds : 0;
  return absl::StrFormat("%.1f %% (%.1f s of training steps that were kept in %.1f s)", share * 100,
                         times.kept_seconds, wall_seconds);
}

}  // namespace caravan
