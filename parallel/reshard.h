// The table of moves between placements along one axis of the mesh.
#pragma once

#include <optional>

#include "runtime/ops.h"

namespace caravan {

// The op that takes a tensor from one placement to another; nothing when they are equal.
//   partial -> replicate   all_reduce          partial -> shard(d)     reduce_scatter
//   shard(d) -> replicate  all_gather          replicate -> shard(d)   slice (no traffic)
//   shard(a) -> shard(b)   all_to_all
// Nothing becomes partial: asking for it is an internal error.
std::optional<Op> reshard(Axis axis, AxisPlacement from, AxisPlacement to);

}  // namespace caravan
