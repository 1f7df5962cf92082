// ZeRO 3 as a declaration: weights lie in shards of dp. The rest follows from it: parallelize
// gathers them where they are read (see there), gradients are reduced to the shard, and the update
// works on it in place.
#pragma once

#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

// Of a graph that is built, before autodiff. Matrices only: norms and biases are next to nothing in
// memory, and to gather them costs as many calls as the rest. Along dim 0, which may be uneven,
// within what tp and ep leave of it; of experts, when there are too few for that, along the next
// dim that divides.
Graph shard_parameters(Graph graph, const Mesh& mesh);

}  // namespace caravan
