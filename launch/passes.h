// The passes that turn a forward graph into one that can be scheduled and planned: the one place
// that knows all of them and their order. What a run executes, and where it lies: pipeline.h.
#pragma once

#include <functional>
#include <string_view>

#include "models/model.h"
#include "optim/optimizer.h"
#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

enum class ProgramKind : uint8_t { accumulate, update, evaluate, logits };
std::string_view name(ProgramKind kind);

struct PassSettings {
  Mesh mesh = {};                    // sizes
  OptimizerSettings optimizer = {};  // its ZeRO stage decides what is sharded, also to evaluate
  bool accumulates = false;          // a step has several micro-batches
  bool recompute = true;
  int64_t bucket_bytes = 0;
};

// Called with the graph after each pass, when that has been verified: "build" (none yet),
// "autodiff", "merge_loss", "recompute", "optimizer", "parallelize", "prefetch", "expand_experts",
// "fuse_add", "bucket", "schedule". Programs without gradients (evaluate, logits): "build" is
// followed by "parallelize".
using PassObserver = std::function<void(std::string_view pass, const Graph& graph)>;

// Up to what a mesh must not change. `forward` is what a model has built, `loss` what it gives; not
// asked of a program of logits, whose outputs the graph already names.
Graph logical_graph(ProgramKind kind, Graph forward, const LossSums& loss,
                    const PassSettings& settings, const PassObserver& observer = {});

// From there to the order of execution, for a rank of the mesh.
Graph placed_graph(const Graph& logical, const PassSettings& settings,
                   const PassObserver& observer = {});

}  // namespace caravan
