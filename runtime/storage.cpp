#include "runtime/storage.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan {

std::vector<ValueId> written_roots(const Node& node, const std::vector<Storage>& storage) {
  std::vector<ValueId> roots;
  const bool is_view = std::holds_alternative<Slice>(node.op) && !aliases(node).empty();
  if (is_view) return roots;
  for (const ValueId id : node.outputs) roots.push_back(storage[index(id)].root);
  return roots;
}

std::vector<Storage> find_storage(const Graph& graph) {
  std::vector<Storage> storage(graph.values.size());
  for (size_t i = 0; i < storage.size(); ++i) storage[i].root = static_cast<ValueId>(i);
  for (const Node& node : graph.nodes) {
    for (const Alias& alias : aliases(node)) {
      const ValueId output = node.outputs[static_cast<size_t>(alias.output)];
      const Storage source = storage[index(node.inputs[static_cast<size_t>(alias.input)])];
      Storage& target = storage[index(output)];
      target = source;
      if (alias.kind == Alias::Kind::whole) target = {.root = source.root};
      if (alias.kind == Alias::Kind::slice) {
        check(!source.is_slice, "%s takes a slice of a slice", node.scope);
        target.is_slice = true;
        target.slice_axis = *collective_axis(node.op);
        target.slice_stride = graph.value(output).bytes();
      }
    }
  }
  return storage;
}

std::vector<int64_t> storage_bytes(const Graph& graph, const std::vector<Storage>& storage,
                                   const Mesh& mesh) {
  std::vector<int64_t> bytes(graph.values.size(), 0);
  for (size_t i = 0; i < graph.values.size(); ++i) {
    const Storage& s = storage[i];
    const int64_t own =
        s.is_slice ? s.slice_stride * mesh.size(s.slice_axis) : graph.values[i].bytes();
    bytes[index(s.root)] = std::max(bytes[index(s.root)], own);
  }
  return bytes;
}

}  // namespace caravan
