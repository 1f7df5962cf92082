#include "launch/model_options.h"

#include <algorithm>
#include <cmath>

namespace caravan {
namespace {

// Where experts are dealt out, a rank gets more or fewer rows than it routes: with room for half as
// many again, few steps need a second pass.
constexpr double kAutoSlots = 1, kAutoSlotsOfExpertParallel = 1.5;

// Of a real number of rows, the next integer; 1.1 * 10 is 11 whatever its last bit says. Any
// number may be asked for, but not more is allocated than can ever be used.
int64_t round_up(double rows, int64_t at_least, int64_t at_most) {
  const double rounded = std::ceil(rows * (1 - 1e-12));
  if (rounded >= static_cast<double>(at_most)) return at_most;
  return std::max(at_least, static_cast<int64_t>(rounded));
}

Slots expert_slots(const Config& config, const MoeConfig& moe, int64_t ep) {
  const int64_t experts = config.model.num_local_experts;
  const int64_t length = config.data.sequence_len, top_k = config.model.num_experts_per_tok;
  const auto picks = static_cast<double>(length * top_k);
  Slots slots{.sequence_len = length, .per_sequence = 1};
  if (moe.capacity_factor > 0) {
    slots.drops = true;
    const double of_one = moe.capacity_factor * picks / static_cast<double>(experts);
    slots.per_sequence = experts * round_up(of_one, 1, length);  // a token picks an expert once
    return slots;
  }
  const double multiple = moe.slots.value_or(ep > 1 ? kAutoSlotsOfExpertParallel : kAutoSlots);
  // At least a row for each rank that sends: with fewer some could never send. At most all that
  // all of them could send here.
  slots.per_sequence = round_up(multiple * picks, ep, ep * length * std::min(top_k, experts / ep));
  return slots;
}

}  // namespace

ModelOptions model_options(const Config& config, const Mesh& mesh, bool training) {
  const int tp = mesh.size(Axis::tp);
  ModelOptions options{.tensor_parallel = tp,
                       .sequence_parallel = config.parallel.sequence_parallel && tp > 1,
                       .whole_sequences = config.data.attend_across_documents,
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
