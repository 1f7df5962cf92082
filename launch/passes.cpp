#include "launch/passes.h"

#include <utility>

#include "parallel/bucket.h"
#include "parallel/expand_experts.h"
#include "parallel/parallelize.h"
#include "parallel/prefetch.h"
#include "parallel/shard_parameters.h"
#include "runtime/error.h"
#include "runtime/passes/autodiff.h"
#include "runtime/passes/fuse_add.h"
#include "runtime/passes/merge_loss.h"
#include "runtime/passes/prune.h"
#include "runtime/passes/recompute.h"
#include "runtime/passes/schedule.h"

namespace caravan {
namespace {

void passed(const PassObserver& observer, std::string_view pass, const Graph& graph) {
  verify(graph, pass);
  if (observer) observer(pass, graph);
}

}  // namespace

std::string_view name(ProgramKind kind) {
  switch (kind) {
    case ProgramKind::accumulate:
      return "accumulate";
    case ProgramKind::update:
      return "update";
    case ProgramKind::evaluate:
      return "evaluate";
    case ProgramKind::logits:
      return "logits";
  }
  throw internal_error("unknown kind of program");
}

Graph logical_graph(ProgramKind kind, Graph forward, const LossSums& loss,
                    const PassSettings& settings, const PassObserver& observer) {
  Graph graph = std::move(forward);
  if (settings.optimizer.zero_stage >= 3) graph = shard_parameters(std::move(graph), settings.mesh);
  if (kind == ProgramKind::evaluate) {
    graph.outputs = {{"loss_sum", loss.loss_sum}, {"num_valid", loss.num_valid}};
  }
  passed(observer, "build", graph);
  if (kind == ProgramKind::evaluate || kind == ProgramKind::logits) return graph;
  Differentiated backward = differentiate(std::move(graph), loss.loss_sum);
  graph = std::move(backward.graph);
  passed(observer, "autodiff", graph);
  graph = merge_loss(std::move(graph));
  passed(observer, "merge_loss", graph);
  if (settings.recompute) graph = recompute(std::move(graph));
  passed(observer, "recompute", graph);
  const MicroBatchResult result{backward.gradients, loss.loss_sum, loss.num_valid, loss.routers};
  if (kind == ProgramKind::accumulate)
    append_accumulate(graph, result, settings.optimizer);
  else
    append_update(graph, result, settings.accumulates, settings.optimizer);
  graph = prune(std::move(graph));
  passed(observer, "optimizer", graph);
  return graph;
}

Graph placed_graph(const Graph& logical, const PassSettings& settings,
                   const PassObserver& observer) {
  Graph graph = parallelize(logical, settings.mesh);
  passed(observer, "parallelize", graph);
  graph = prefetch(std::move(graph));
  passed(observer, "prefetch", graph);
  graph = expand_experts(std::move(graph), settings.mesh);
  passed(observer, "expand_experts", graph);
  graph = fuse_add(std::move(graph));
  passed(observer, "fuse_add", graph);
  graph = bucket_gradients(reorder(std::move(graph)), settings.bucket_bytes);
  passed(observer, "bucket", graph);
  graph = reorder(std::move(graph));
  passed(observer, "schedule", graph);
  return graph;
}

}  // namespace caravan
