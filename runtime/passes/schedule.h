// Decides in which order and on which stream the nodes run.
#pragma once

#include <vector>

#include "runtime/graph.h"
#include "runtime/program.h"

namespace caravan {

// Orders the nodes: dependencies first (data, and readers of bytes before what overwrites them),
// else the order that stands, except that a collective or a sum of gradients runs as soon as its
// inputs are there: it frees memory, and communication begins early. Parameters that are gathered
// stay where they are read. A node that would wait for communication lets others of its layer go
// first that need not: a shared expert, gradients of weights. Marks collectives for the
// communication stream.
Graph reorder(Graph graph);

// The steps of an ordered graph: one per node, and what each waits for.
std::vector<Step> schedule(const Graph& graph);

}  // namespace caravan
