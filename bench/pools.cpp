// What one arena saves: the planned bytes of a rank against separate pools for weights, gradients,
// optimizer state, activations and communication, each as large as its own peak.
//   bench_pools CONFIG [key=value ...]       parallel.dp=8 plans for 8 ranks; starts none
// Prints one JSON line. The pools are those of the same plan (same order, same lifetimes) and
// packed without a gap, which no allocator does better. Scratch memory of kernels lies in the pool
// of activations; buckets of reduced gradients and collectives' scratch in that of communication.
#include <array>
#include <numeric>

#include "bench/bench_main.h"
#include "launch/pipeline.h"
#include "launch/session.h"

namespace caravan {
namespace {

using BytesByCategory = std::array<int64_t, kNumMemoryCategories>;

MemoryCategory pool_of(MemoryCategory category) {
  return category == MemoryCategory::workspace ? MemoryCategory::activations : category;
}

// The planner counts buckets as gradients, which they are; only their names tell them apart.
MemoryCategory pool_of(const Block& block) {
  return block.name.starts_with("bucket ") ? MemoryCategory::communication
                                           : pool_of(block.category);
}

// The most that is live of one pool at a step of the program.
int64_t peak_bytes(const Program& program, MemoryCategory pool) {
  std::vector<int64_t> change(program.steps.size() + 1, 0);
  for (const Block& block : program.plan.blocks) {
    if (pool_of(block) != pool) continue;
    change[static_cast<size_t>(block.first_step)] += block.bytes;
    change[static_cast<size_t>(block.last_step) + 1] -= block.bytes;
  }
  std::partial_sum(change.begin(), change.end(), change.begin());
  return std::ranges::max(change);
}

BytesByCategory pools_of(const RunPlan& plan) {
  BytesByCategory bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const Program& program : plan.programs) {
      bytes[i] = std::max(bytes[i], peak_bytes(program, static_cast<MemoryCategory>(i)));
    }
  }
  for (const PersistentEntry& entry : plan.layout.entries) {
    bytes[static_cast<size_t>(pool_of(entry.category))] += entry.bytes;
  }
  return bytes;
}

void compare_pools(std::vector<std::string> arguments) {
  if (arguments.empty()) throw config_error("usage: bench_pools CONFIG [key=value ...]");
  const Config config = load_bench_config(arguments);
  const int num_ranks =
      static_cast<int>(config.parallel.dp.value_or(1) * config.parallel.ep.value_or(1) *
                       config.parallel.tp.value_or(1));
  validate(config, num_ranks);
  const RunPlan plan = plan_run(config, make_mesh(config, num_ranks),
                                workspace_rule(DeviceKind::cpu, threads_per_rank(config, 1)));
  nlohmann::json result = {{"arena_bytes", plan.arena_bytes()}};
  const BytesByCategory pools = pools_of(plan);
  for (size_t i = 0; i < pools.size(); ++i) {
    const auto category = static_cast<MemoryCategory>(i);
    if (pool_of(category) == category) result["pools"][std::string(name(category))] = pools[i];
  }
  std::cout << result << std::endl;
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  return caravan::run_bench("bench_pools", argc, argv, caravan::compare_pools);
}
