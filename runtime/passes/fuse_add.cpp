#include "runtime/passes/fuse_add.h"

#include <array>
#include <utility>

#include "runtime/storage.h"

namespace caravan {
namespace {

// Null for ops that cannot have one.
Addend* addend_in(Op& op) {
  return std::visit(
      [](auto& one) -> Addend* {
        if constexpr (requires { one.addend; }) return &one.addend;
        return nullptr;
      },
      op);
}

class AddFusion {
 public:
  explicit AddFusion(Graph& graph)
      : graph_(graph),
        storage_(find_storage(graph)),
        producer_(graph.values.size(), -1),
        num_readers_(graph.values.size(), 0),
        num_sharing_(graph.values.size(), 0) {
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const ValueId id : graph.nodes[i].outputs) producer_[index(id)] = static_cast<int>(i);
      for (const ValueId id : graph.nodes[i].inputs) ++num_readers_[index(id)];
    }
    for (const auto& [name, id] : graph.outputs) ++num_readers_[index(id)];
    for (const auto& [target, source] : graph.updates) ++num_readers_[index(source)];
    for (const Storage& storage : storage_) ++num_sharing_[index(storage.root)];
  }

  // Whether the Add at `i` is now part of the op before it.
  bool fuse(size_t i) {
    const Node& add = graph_.nodes[i];
    if (!std::holds_alternative<Add>(add.op)) return false;
    const std::array orders = {std::pair{add.inputs[0], add.inputs[1]},
                               std::pair{add.inputs[1], add.inputs[0]}};
    // The later of two candidates: the earlier one's result can then be its addend.
    const auto& [made, addend] =
        producer_[index(orders[0].first)] > producer_[index(orders[1].first)] ? orders[0]
                                                                              : orders[1];
    const int producer = producer_[index(made)];
    if (made == addend || producer < 0 || producer_[index(addend)] >= producer) return false;
    Node& node = graph_.nodes[static_cast<size_t>(producer)];
    Addend* const mode = addend_in(node.op);
    if (mode == nullptr || *mode != Addend::none || node.outputs[0] != made) return false;
    if (num_readers_[index(made)] != 1) return false;
    const bool in_place = is_free(addend);
    if (!in_place && std::holds_alternative<EmbeddingGrad>(node.op)) return false;
    *mode = in_place ? Addend::in_place : Addend::separate;
    node.inputs.push_back(addend);
    node.outputs[0] = add.outputs[0];
    producer_[index(add.outputs[0])] = producer;
    return true;
  }

 private:
  // Nobody but the Add reads it, and its bytes are its own.
  bool is_free(ValueId id) const {
    const Value& value = graph_.value(id);
    return !is_persistent(value.kind) && value.kind != ValueKind::input &&
           num_readers_[index(id)] == 1 && storage_[index(id)].root == id &&
           num_sharing_[index(id)] == 1;
  }

  Graph& graph_;
  std::vector<Storage> storage_;
  std::vector<int> producer_;
  std::vector<int> num_readers_;
  std::vector<int> num_sharing_;  // by root: values that lie in the storage
};

}  // namespace

Graph fuse_add(Graph graph) {
  AddFusion fusion(graph);
  std::vector<bool> is_gone(graph.nodes.size(), false);
  for (size_t i = 0; i < graph.nodes.size(); ++i) is_gone[i] = fusion.fuse(i);
  std::vector<Node> kept;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!is_gone[i]) kept.push_back(std::move(graph.nodes[i]));
  }
  graph.nodes = std::move(kept);
  return graph;
}

}  // namespace caravan
