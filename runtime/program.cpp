#include "runtime/program.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {

std::string_view name(MemoryCategory category) {
  switch (category) {
    case MemoryCategory::weights:
      return "weights";
    case MemoryCategory::gradients:
      return "gradients";
    case MemoryCategory::optimizer:
      return "optimizer";
    case MemoryCategory::activations:
      return "activations";
    case MemoryCategory::communication:
      return "communication";
    case MemoryCategory::workspace:
      return "workspace";
  }
  throw internal_error("unknown memory category");
}

std::vector<RepeatedSteps> repeated_steps(const Graph& graph, const std::vector<Step>& steps) {
  std::vector<RepeatedSteps> found;
  for (size_t i = 0; i < steps.size(); ++i) {
    const int repeat = graph.nodes[index(steps[i].node)].repeat;
    if (repeat < 0) continue;
    const bool goes_on = !found.empty() && found.back().end == i && found.back().repeat == repeat;
    if (goes_on)
      ++found.back().end;
    else
      found.push_back({repeat, i, i + 1});
  }
  return found;
}

uint64_t hash(const Program& program) {
  std::string text = program.name + "\n" + to_string(program.mesh) + "\n" + dump(program.graph);
  for (size_t i = 0; i < program.steps.size(); ++i) {
    text += absl::StrFormat("%d %d %d\n", index(program.steps[i].node), program.steps[i].wait_for,
                            program.plan.workspace_offsets[i]);
  }
  for (const Location& location : program.plan.locations) {
    text += absl::StrFormat("%d %d %d\n", static_cast<int>(location.region), location.offset,
                            location.slice_stride);
  }
  return stable_hash(text);
}

void verify_plan(const Program& program) {
  const std::vector<Block>& blocks = program.plan.blocks;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Block& a = blocks[i];
    check(a.offset >= 0 && a.offset + a.bytes <= program.plan.transient_bytes,
          "program '%s': '%s' lies outside the transient region", program.name, a.name);
    for (size_t j = i + 1; j < blocks.size(); ++j) {
      const Block& b = blocks[j];
      const bool together = a.first_step <= b.last_step && b.first_step <= a.last_step;
      const bool overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
      check(!together || !overlap || a.bytes == 0 || b.bytes == 0,
            "program '%s': '%s' and '%s' share bytes while both are in use", program.name, a.name,
            b.name);
    }
  }
}

}  // namespace caravan
