// Which values share bytes: ops that work in place, and views of shards.
#pragma once

#include <vector>

#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

// Where a value's bytes are: those of `root`, or this rank's part of them.
struct Storage {
  ValueId root = ValueId::none;
  bool is_slice = false;
  Axis slice_axis = Axis::dp;
  int64_t slice_stride = 0;  // bytes between the parts of two neighbours on the axis
};

std::vector<Storage> find_storage(const Graph& graph);

// Bytes that the storage of each root needs (0 for values that are no root).
std::vector<int64_t> storage_bytes(const Graph& graph, const std::vector<Storage>& storage,
                                   const Mesh& mesh);

// Roots of the storages that the node writes: its outputs, also where they lie in place.
std::vector<ValueId> written_roots(const Node& node, const std::vector<Storage>& storage);

}  // namespace caravan
