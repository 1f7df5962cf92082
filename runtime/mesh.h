// The mesh of processes: named axes over one rank array, and what a rank holds of a placed tensor.
#pragma once

#include <array>
#include <string>

#include "runtime/types.h"

namespace caravan {

// Ranks are numbered with dp outermost and tp innermost, so that tensor-parallel peers are
// neighbours: rank = (dp * ep_size + ep) * tp_size + tp.
struct Mesh {
  std::array<int, kNumAxes> sizes = {1, 1, 1};  // by Axis
  int rank = 0;

  int size(Axis axis) const { return sizes[static_cast<size_t>(axis)]; }
  int num_ranks() const { return sizes[0] * sizes[1] * sizes[2]; }
  int coordinate(Axis axis) const;
  Mesh with_rank(int other) const { return {sizes, other}; }
};
std::string to_string(const Mesh& mesh);  // "dp 2 x tp 4", "1 process"

// The shape that every rank plans for: sharded dims divided, rounded up.
Shape local_shape(const Shape& global, const Placement& placement, const Mesh& mesh);

// The part of the global tensor that this rank holds; smaller than local_shape, down to nothing,
// on the last ranks when a dim does not divide. A dim sharded by several axes is split by tp first,
// then ep, then dp, or by tp last (Placement::tp_is_last).
Box local_box(const Shape& global, const Placement& placement, const Mesh& mesh);

}  // namespace caravan
