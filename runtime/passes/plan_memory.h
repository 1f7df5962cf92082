// Gives every value its place in the arena, from its lifetime on the schedule.
#pragma once

#include <functional>
#include <span>

#include "runtime/program.h"

namespace caravan {

inline constexpr int64_t kArenaAlignment = 64;  // bytes, of every value

// The persistent region of a run: parameters, state and accumulators of all its graphs in order of
// declaration (the first graph first), except that values which some graph wants contiguous lie
// one after another. A checkpoint is a walk over it.
PersistentLayout plan_persistent(std::span<const Graph* const> graphs, const Mesh& mesh);

struct PlanOptions {
  bool keep_all = false;  // no byte is used twice: for debugging
  // Scratch bytes of a node (Backend::workspace_bytes).
  std::function<int64_t(const Graph&, const Node&)> workspace_bytes;
};

// A value lives from the step that makes it to the last that reads it. What a communication step
// touches lives until a compute step has waited for it: until then it may be running.
MemoryPlan plan_memory(const Graph& graph, const std::vector<Step>& steps, const Mesh& mesh,
                       const PersistentLayout& persistent, const PlanOptions& options);

// What blocks are called after: "layers.3.mlp swiglu".
std::string label(const Node& node);

// Bytes of the transient region that are in use at each step.
std::vector<int64_t> live_bytes(const MemoryPlan& plan, size_t num_steps);

}  // namespace caravan
