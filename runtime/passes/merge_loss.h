// One pass over the logits instead of two: the gradient of linear_cross_entropy makes the loss on
// its way, so the forward op goes where it can.
#pragma once

#include "runtime/graph.h"

namespace caravan {

// After autodiff. Every linear_cross_entropy whose gradient is in the graph, with a dloss_sum that
// is a constant, gives its place and its results to the gradient. A weight that is read with
// another dloss_sum (one made from the loss itself) keeps both ops.
Graph merge_loss(Graph graph);

}  // namespace caravan
