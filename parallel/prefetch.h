// Weights that are gathered where they are read (ZeRO 3): the gather begins one layer earlier, so
// that it runs on the communication stream while the layer before computes.
#pragma once

#include "runtime/graph.h"

namespace caravan {

// After parallelize, before anything repeats. Moves every gather of a parameter (with the cast
// before it, if there is one) to where as large a
// part of the weights of the layer before has been read as of its own layer is gathered before it;
// those of the first layer to the start. At any time the weights that are there are what is left of
// one layer and what has come of the next: as many as one layer has, or at its ends two.
Graph prefetch(Graph graph);

}  // namespace caravan
