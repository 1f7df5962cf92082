#include "parallel/shard_parameters.h"

namespace caravan {
namespace {

int dim_to_shard(const Value& value, const Mesh& mesh) {
  const Shape local = local_shape(value.global_shape, value.placement, mesh);
  if (local.size() <= 2) return 0;
  for (size_t dim = 0; dim < local.size(); ++dim) {
    if (local[dim] % mesh.size(Axis::dp) == 0) return static_cast<int>(dim);
  }
  return 0;
}

}  // namespace

Graph shard_parameters(Graph graph, const Mesh& mesh) {
  for (Value& value : graph.values) {
    if (value.kind != ValueKind::parameter || value.global_shape.size() < 2) continue;
    value.placement[Axis::dp] = shard(dim_to_shard(value, mesh));
  }
  return graph;
}

}  // namespace caravan
