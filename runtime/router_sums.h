// What a layer's router did with the tokens of a micro-batch: how the model hands it to the
// optimizer, for balancing and for the log.
#pragma once

#include "runtime/graph.h"

namespace caravan {

struct RouterSums {
  int layer = -1;
  ValueId bias = ValueId::none;     // (E) state, none without
  ValueId load = ValueId::none;     // (E) tokens that picked each expert
  ValueId dropped = ValueId::none;  // () picks that found no room
  ValueId further = ValueId::none;  // () passes after the first
};

}  // namespace caravan
