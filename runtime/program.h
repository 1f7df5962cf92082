// A Program: a graph, the order and streams of its nodes, and a place in the arena for every value.
// Immutable once made; what changes from step to step is an input value.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

// The order of execution. Compute steps run one after another; a communication step begins when
// every compute step before it is done, and runs beside those after it.
struct Step {
  NodeId node = NodeId::none;
  // A compute step waits until the communication step at this index (and so all before it) is
  // done; -1: it waits for none.
  int wait_for = -1;
};

// Steps [first, end) whose nodes repeat together (Node::repeat).
struct RepeatedSteps {
  int repeat;  // index into Graph::repeats
  size_t first;
  size_t end;
};
// All of them, in order; a repeat that others interrupt is there once per part.
std::vector<RepeatedSteps> repeated_steps(const Graph& graph, const std::vector<Step>& steps);

enum class Region : uint8_t { persistent, transient };

// Where a value lies: offset in bytes from the start of its region, plus the coordinate of the
// rank on `slice_axis` times `slice_stride` for a view of a shard.
struct Location {
  Region region = Region::transient;
  int64_t offset = 0;
  Axis slice_axis = Axis::dp;
  int64_t slice_stride = 0;
};

// What the report and the picture group bytes by.
enum class MemoryCategory : uint8_t {
  weights,
  gradients,
  optimizer,
  activations,
  communication,
  workspace
};
inline constexpr int kNumMemoryCategories = 6;
std::string_view name(MemoryCategory category);

// A range of the transient region that is in use over a range of steps.
struct Block {
  std::string name = {};
  MemoryCategory category = MemoryCategory::activations;
  int64_t offset = 0;
  int64_t bytes = 0;
  int first_step = 0;
  int last_step = 0;  // inclusive
};

struct MemoryPlan {
  std::vector<Location> locations;         // by ValueId
  std::vector<int64_t> workspace_offsets;  // by step, in the transient region; -1: none
  std::vector<int64_t> workspace_bytes;    // by step
  std::vector<Block> blocks;
  int64_t transient_bytes = 0;  // of the plan
  int64_t max_live_bytes = 0;   // the most that is live at one step: the lower bound of any plan
};

// Where parameters, state and accumulators lie, by name: the same for all Programs of a run.
struct PersistentEntry {
  std::string name = {};
  MemoryCategory category = MemoryCategory::activations;
  int64_t offset = 0;
  int64_t bytes = 0;
};
struct PersistentLayout {
  std::vector<PersistentEntry> entries;   // in order of offset
  std::map<std::string, size_t> by_name;  // index into entries
  int64_t bytes = 0;
};

struct Program {
  std::string name;  // "accumulate", "update", "evaluate"
  Graph graph;
  Mesh mesh;  // sizes; the rank is the executor's affair
  std::vector<Step> steps;
  MemoryPlan plan;
};

// A hash of everything that all ranks must agree on before the first collective.
uint64_t hash(const Program& program);

// Every pair of blocks that are live at one step lies apart; an internal error names two that do
// not. Runs on every Program in debug builds and in tests.
void verify_plan(const Program& program);

}  // namespace caravan
