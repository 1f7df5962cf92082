#include "launch/training_state.h"

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr char kSkipped[] = "skipped_steps";
constexpr char kSkippedInRow[] = "skipped_in_row";
constexpr char kLosses[] = "losses";
constexpr char kGradNorms[] = "grad_norms";

template <typename Map>
const typename Map::mapped_type& get(const Map& map, const char* key) {
  const auto found = map.find(key);
  if (found != map.end()) return found->second;
  throw checkpoint_error(absl::StrFormat(
      "the checkpoint lacks '%s' of the training state: it was not written by `caravan train` of "
      "this version",
      key));
}

std::optional<double> find(const std::map<std::string, double>& map, const char* key) {
  const auto found = map.find(key);
  return found == map.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace

void store(const TrainingState& state, CheckpointHeader& header) {
  header.run_id = state.run_id;
  header.step = state.step;
  header.tokens = state.tokens;
  header.counters[kSkipped] = state.skipped_steps;
  header.counters[kSkippedInRow] = state.skipped_in_row;
  if (state.loss) header.scalars["loss"] = *state.loss;
  if (state.validation_loss) header.scalars["validation_loss"] = *state.validation_loss;
  header.series[kLosses] = state.losses.values();
  header.series[kGradNorms] = state.grad_norms.values();
}

TrainingState restore(const CheckpointHeader& header) {
  return {.run_id = header.run_id,
          .step = header.step,
          .tokens = header.tokens,
          .skipped_steps = get(header.counters, kSkipped),
          .skipped_in_row = get(header.counters, kSkippedInRow),
          .loss = find(header.scalars, "loss"),
          .validation_loss = find(header.scalars, "validation_loss"),
          .losses = RollingStatistics(get(header.series, kLosses)),
          .grad_norms = RollingStatistics(get(header.series, kGradNorms))};
}

}  // namespace caravan
