// Random graphs of one rank, to try passes on: residual sums, norms, sums in place, views, and
// collectives, in a valid order.
#pragma once

#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

struct RandomGraphOptions {
  uint64_t seed = 0;
  int num_nodes = 60;
  int num_ranks = 2;  // of axis dp, which the collectives speak of
};

// The inputs "in0".. differ from rank to rank; state "sum0".. is accumulated into, also repeatedly.
// All values that nothing overwrote are outputs "out0"... Some all_reduces have several members,
// which the graph wants contiguous. `verify` accepts the graph.
Graph random_graph(const RandomGraphOptions& options);
Mesh mesh_of(const RandomGraphOptions& options);

}  // namespace caravan
