#include "launch/model_options.h"

#include <algorithm>
#include <cmath>

namespace caravan {
namespace {

// Where experts are dealt out, a rank gets more or fewer rows than it routes: with room for half as
// many again, few steps need a second pass.
constexpr double kAutoSlots = 1, kAutoSlotsOfExpertParallel = 1.5;

// Of a real number of rows, the next integer; 1.1 * 10 is 11 whatever its last bit says.
int64_t round_up(double rows) { return static_cast<int64_t>(std::ceil(rows * (1 - 1e-12))); }

Slots expert_slots(const Config& config, const MoeConfig& moe, int64_t ep) {
  const int64_t experts = config.model.num_local_experts;
  const auto picks =
      static_cast<double>(config.data.sequence_len * config.model.num_experts_per_tok);
  Slots slots{.sequence_len = config.data.sequence_len, .per_sequence = 1};
  if (moe.capacity_factor > 0) {
    slots.drops = true;
    const double of_one = moe.capacity_factor * picks / static_cast<double>(experts);
    slots.per_sequence = experts * std::max<int64_t>(1, round_up(of_one));
    return slots;
  }
  const double multiple = moe.slots.value_or(ep > 1 ? kAutoSlotsOfExpertParallel : kAutoSlots);
  // At least a row for each rank that sends: with fewer some could never send.
  slots.per_sequence = std::max(ep, round_up(multiple * picks));
  return slots;
}

}  // namespace

ModelOptions model_options(const Config& config, const Mesh& mesh, bool training) {
  const int tp = mesh.size(Axis::tp);
  ModelOptions options{.tensor_parallel = tp,
                       .sequence_parallel = config.parallel.sequence_parallel && tp > 1,
                       .training = training};
  if (config.model.num_local_experts == 0) return options;
  const MoeConfig moe = config.moe.value_or(MoeConfig{});
  options.router_bias = moe.balance == Balance::bias;
  options.aux_loss_coef =
      moe.balance == Balance::aux_loss ? static_cast<float>(moe.aux_loss_coef) : 0.0f;
  options.z_loss_coef = static_cast<float>(moe.z_loss_coef);
  options.slots = expert_slots(config, moe, mesh.size(Axis::ep));
  return options;
}

}  // namespace caravan
