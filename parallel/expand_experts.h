// Makes of Experts and ExpertsGrad what runs: sorting, dispatch, grouped products, combine, and,
// where experts are dealt out along an axis, the exchange of rows. After parallelize.
//
// A pass takes as many rows as there are slots. What is beyond goes through the same nodes again:
// a repeat (runtime/graph.h), as often as the ranks that exchange rows agree on, usually not at
// all. The rows of the first pass stay for backward; those of further passes are made again there.
#pragma once

#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

Graph expand_experts(Graph graph, const Mesh& mesh);

}  // namespace caravan
