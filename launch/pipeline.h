// From a configuration to Programs, through the passes of passes.h.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/device.h"
#include "runtime/backend.h"
#include "runtime/mesh.h"
#include "runtime/program.h"

namespace caravan {

// All that a run executes, and where it lies. The same on every rank.
struct RunPlan {
  Mesh mesh;
  int64_t accumulation_steps = 1;
  PersistentLayout layout;
  // The first declares all that persists. Of training: "update", "accumulate" (only when it
  // accumulates), "evaluate"; else "logits" alone.
  std::vector<Program> programs;

  const Program* find(std::string_view name) const;     // null when absent
  const Program& program(std::string_view name) const;  // internal error when absent
  int64_t transient_bytes() const;                      // of the largest program
  int64_t arena_bytes() const { return layout.bytes + transient_bytes(); }
};

// Called with the graph after each pass: see PassObserver in passes.h.
using GraphObserver =
    std::function<void(std::string_view program, std::string_view pass, const Graph& graph)>;

// The mesh of a configuration for so many processes; config errors when they do not fit.
Mesh make_mesh(const Config& config, int world_size);

// "dp 2 x tp 2, sequence parallel"
std::string describe_mesh(const Config& config, const Mesh& mesh);

// What a run is for: training, with its evaluations, or the logits of batches, for which only
// weights are kept.
enum class RunPurpose : uint8_t { training, logits };

// Plans every program of a run. `config` is validated and its model has a vocabulary.
RunPlan plan_run(const Config& config, const Mesh& mesh, const WorkspaceRule& workspace,
                 const GraphObserver& observer = {}, RunPurpose purpose = RunPurpose::training);

}  // namespace caravan
