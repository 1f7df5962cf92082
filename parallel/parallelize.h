// The placement pass: from a logical graph with placements on parameters, state and inputs to the
// graph of one rank, with collectives where placements disagree.
//
// Each op says per axis what it needs of its inputs and what it then gives (runtime/ops/rules.h);
// the pass walks the nodes once and inserts the moves of parallel/reshard.h. Data, tensor and
// expert parallelism and ZeRO differ only in what was declared.
#pragma once

#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

// Weights that are not where an op needs them are gathered for the nodes of one layer in a row and
// dropped: backward gathers them again (ZeRO 3; prefetch.h has it begin earlier).
// Shapes become what a rank holds, global_shape stays. Axes of size 1 count as replicated. Outputs
// come out replicated, but for axes that they were asked to be sharded along (Builder::place);
// updates placed like what they update. Dims divide evenly, except dim 0 of optimizer state and of
// what is reduced to it (local_box in runtime/mesh.h); any other dim that does not is a config
// error that names the tensor. Losses over a vocabulary that ranks share are expanded
// (expand_loss.h).
Graph parallelize(const Graph& logical, const Mesh& mesh);

// What a step of the graph sends and receives, per rank.
struct CollectiveSummary {
  std::string name;  // "all_reduce@dp"
  int calls = 0;
  int tensors = 0;
  double bytes = 0;  // of the tensors, whole
};
std::vector<CollectiveSummary> summarize_collectives(const Graph& graph);

}  // namespace caravan
