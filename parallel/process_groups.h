// The communicators of one thread: one per axis of the mesh, and one over all ranks.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "runtime/communicator.h"
#include "runtime/mesh.h"

namespace caravan {

// Collectives of two threads must never share a communicator: their order is not the same on every
// rank. So each thread that communicates (main, compute stream, communication stream) has a copy
// of its own; they are independent of each other and of the world that they were made from.
struct ProcessGroups {
  std::unique_ptr<Communicator> all;
  std::array<std::unique_ptr<Communicator>, kNumAxes> by_axis;  // rank in it = coordinate

  Communicator& axis(Axis axis) { return *by_axis[static_cast<size_t>(axis)]; }
};

// Collective over `world`, whose rank and size are the mesh's. An axis of size 1 is a group of one.
ProcessGroups make_groups(Communicator& world, const Mesh& mesh);

}  // namespace caravan
