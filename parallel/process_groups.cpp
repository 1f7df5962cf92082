// Splits the world along the axes of the mesh.
#include "parallel/process_groups.h"

#include "runtime/error.h"

namespace caravan {
namespace {

// Distance in rank between neighbours along the axis: tp is innermost.
int rank_stride(const Mesh& mesh, Axis axis) {
  int stride = 1;
  for (size_t inner = static_cast<size_t>(axis) + 1; inner < mesh.sizes.size(); ++inner) {
    stride *= mesh.sizes[inner];
  }
  return stride;
}

std::unique_ptr<Communicator> make_axis_group(Communicator& world, const Mesh& mesh, Axis axis) {
  if (mesh.size(axis) == 1) return make_self_communicator();
  const int coordinate = mesh.coordinate(axis);
  // The rank at coordinate 0 names the group.
  const int first = mesh.rank - coordinate * rank_stride(mesh, axis);
  return world.split(first, coordinate);
}

}  // namespace

ProcessGroups make_groups(Communicator& world, const Mesh& mesh) {
  check(world.size() == mesh.num_ranks() && world.rank() == mesh.rank,
        "rank %d of %d processes cannot be rank %d of the mesh %s", world.rank(), world.size(),
        mesh.rank, to_string(mesh));
  ProcessGroups groups;
  groups.all = world.split(0, world.rank());
  for (const Axis axis : kAxes) {
    groups.by_axis[static_cast<size_t>(axis)] = make_axis_group(world, mesh, axis);
  }
  return groups;
}

}  // namespace caravan
