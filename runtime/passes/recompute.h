// What is cheap to make again is not kept from forward to backward: backward makes it anew, with
// the same bits.
#pragma once

#include "runtime/graph.h"

namespace caravan {

// After autodiff and merge_loss. Results of rms_norm and swiglu and weights that were cast, whose
// inputs are kept in any case: making them again is one pass over memory. Nothing else changes.
Graph recompute(Graph graph);

}  // namespace caravan
