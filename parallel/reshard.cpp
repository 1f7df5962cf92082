#include "parallel/reshard.h"

#include "runtime/error.h"

namespace caravan {

std::optional<Op> reshard(Axis axis, AxisPlacement from, AxisPlacement to) {
  using Kind = AxisPlacement::Kind;
  if (from == to) return std::nullopt;
  switch (to.kind) {
    case Kind::replicate:
      if (from.kind == Kind::partial) return AllReduce{axis};
      return AllGather{axis, from.dim};
    case Kind::shard:
      if (from.kind == Kind::partial) return ReduceScatter{axis, to.dim};
      if (from.kind == Kind::replicate) return Slice{axis, to.dim};
      return AllToAll{axis, from.dim, to.dim};
    case Kind::partial:
      break;
  }
  throw internal_error(absl::StrFormat("no move from %s to %s along %s", to_string(from),
                                       to_string(to), name(axis)));
}

}  // namespace caravan
