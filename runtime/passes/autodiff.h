// Reverse-mode differentiation: appends the backward nodes of a scalar loss.
#pragma once

#include <utility>
#include <vector>

#include "runtime/graph.h"

namespace caravan {

struct Differentiated {
  Graph graph;  // the forward nodes, then the backward nodes
  // Each parameter that the loss depends on, in order of declaration, and its gradient.
  std::vector<std::pair<ValueId, ValueId>> gradients;
};

// d loss / d parameter for every parameter; `loss` is a scalar of the graph. Where a value is used
// several times, its gradients are added in the order in which backward reaches them.
Differentiated differentiate(Graph graph, ValueId loss);

}  // namespace caravan
