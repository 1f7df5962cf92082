// Removes nodes whose results nobody reads.
#pragma once

#include "runtime/graph.h"

namespace caravan {

// Values keep their ids; what is needed is what outputs and updates depend on.
Graph prune(Graph graph);

}  // namespace caravan
