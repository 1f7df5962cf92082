// Adds that cost nothing: an op that makes one operand of an Add takes the other as its addend, so
// the sum is never a pass over memory of its own, and often no memory either.
#pragma once

#include "runtime/graph.h"

namespace caravan {

// After parallelize: a sum of partial values is one, but collectives stand between others. The
// addend must be there before the op runs. It is overwritten in place where nobody else reads it.
Graph fuse_add(Graph graph);

}  // namespace caravan
