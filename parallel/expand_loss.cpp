#include "parallel/expand_loss.h"

#include <utility>

namespace caravan {
namespace {

class LossExpansion {
 public:
  LossExpansion(Graph graph, const Mesh& mesh) : graph_(std::move(graph)), mesh_(mesh) {}

  Graph run() {
    for (Node& node : std::exchange(graph_.nodes, {})) {
      if (family(node.op) == "loss" && is_shared(node.inputs[1]))
        expand(node);
      else
        graph_.nodes.push_back(std::move(node));
    }
    return std::move(graph_);
  }

 private:
  bool shares(Axis axis, ValueId weight) const {
    return mesh_.size(axis) > 1 && graph_.value(weight).placement[axis] == shard(0);
  }

  bool is_shared(ValueId weight) const {
    for (const Axis axis : kAxes) {
      if (shares(axis, weight)) return true;
    }
    return false;
  }

  void expand(const Node& loss) {
    const auto& in = loss.inputs;
    const auto& out = loss.outputs;
    const ValueId parts = gather(loss, part(loss));
    const ValueId lse = add(graph_.value(in[2]).global_shape, graph_.value(in[2]).placement);
    emit(loss, MergeCrossEntropy{}, {parts, in[2]}, {lse, out[0], out[1]});
    if (std::holds_alternative<LinearCrossEntropy>(loss.op)) return;
    emit(loss, CrossEntropyPartGrad{}, {in[0], in[1], in[2], lse, in[3]}, {out[2], out[3]});
  }

  // (P,2,T): one part per rank that shares the vocabulary; tokens lie as the targets do.
  ValueId part(const Node& loss) {
    const Value targets = graph_.value(loss.inputs[2]);
    Placement placement;
    int64_t num_parts = 1;
    for (const Axis axis : kAxes) {
      if (targets.placement[axis] == shard(0)) placement[axis] = shard(2);
      if (!shares(axis, loss.inputs[1])) continue;
      placement[axis] = shard(0);
      num_parts *= mesh_.size(axis);
    }
    const ValueId made = add({num_parts, 2, targets.global_shape[0]}, placement);
    emit(loss, CrossEntropyPart{}, {loss.inputs[0], loss.inputs[1], loss.inputs[2]}, {made});
    return made;
  }

  // From the axis that cuts last to the one that cuts first: kAxes (local_box).
  ValueId gather(const Node& loss, ValueId parts) {
    for (const Axis axis : kAxes) {
      if (!shares(axis, loss.inputs[1])) continue;
      const Value from = graph_.value(parts);
      const ValueId whole = add(from.global_shape, from.placement.with(axis, kReplicate));
      emit(loss, AllGather{axis, 0}, {parts}, {whole});
      parts = whole;
    }
    return parts;
  }

  ValueId add(const Shape& global, const Placement& placement) {
    return graph_.add_value({.shape = local_shape(global, placement, mesh_),
                             .global_shape = global,
                             .placement = placement});
  }

  void emit(const Node& loss, Op op, std::vector<ValueId> inputs, std::vector<ValueId> outputs) {
    graph_.add_node({.op = std::move(op),
                     .inputs = std::move(inputs),
                     .outputs = std::move(outputs),
                     .layer = loss.layer,
                     .scope = loss.scope});
  }

  Graph graph_;
  const Mesh& mesh_;
};

}  // namespace

Graph expand_loss(Graph placed, const Mesh& mesh) {
  return LossExpansion(std::move(placed), mesh).run();
}

}  // namespace caravan
