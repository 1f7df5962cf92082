#include "runtime/passes/recompute.h"

#include <algorithm>

namespace caravan {
namespace {

// Casts of weights, not of activations: both are one pass over memory, but nobody keeps the other
// type of an activation.
bool is_cheap(const Graph& graph, const Node& node) {
  if (std::holds_alternative<Cast>(node.op)) {
    return graph.value(node.inputs[0]).kind == ValueKind::parameter;
  }
  return std::holds_alternative<RmsNorm>(node.op) || std::holds_alternative<SwiGlu>(node.op);
}

bool reads(const Node& node, ValueId id) {
  return std::ranges::find(node.inputs, id) != node.inputs.end();
}

// Backward begins behind the loss: what that reads is there without being kept.
size_t first_of_backward(const Graph& graph) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (family(node.op) != "loss" && !node.inputs.empty() &&
        graph.value(node.outputs[0]).kind == ValueKind::gradient) {
      return i;
    }
  }
  return graph.nodes.size();
}

size_t first_reader(const Graph& graph, ValueId id, size_t from) {
  while (from < graph.nodes.size() && !reads(graph.nodes[from], id)) ++from;
  return from;
}

bool is_kept(const Graph& graph, ValueId id, size_t until) {
  return is_persistent(graph.value(id).kind) || first_reader(graph, id, until) < graph.nodes.size();
}

// Gives all readers from `reader` on a second result of `node`, made right before them.
void make_again(Graph& graph, Node node, size_t reader) {
  const ValueId first = node.outputs[0];
  for (ValueId& id : node.outputs) {
    Value copy = graph.value(id);
    id = graph.add_value(std::move(copy));
  }
  for (size_t i = reader; i < graph.nodes.size(); ++i) {
    std::ranges::replace(graph.nodes[i].inputs, first, node.outputs[0]);
  }
  node.scope += ".recompute";
  graph.nodes.insert(graph.nodes.begin() + static_cast<std::ptrdiff_t>(reader), std::move(node));
}

}  // namespace

Graph recompute(Graph graph) {
  const size_t backward = first_of_backward(graph);
  for (size_t i = 0; i < backward; ++i) {
    const Node node = graph.nodes[i];
    if (!is_cheap(graph, node)) continue;
    const size_t reader = first_reader(graph, node.outputs[0], backward);
    if (reader == graph.nodes.size()) continue;
    const bool has_inputs =
        std::ranges::all_of(node.inputs, [&](ValueId id) { return is_kept(graph, id, reader); });
    if (has_inputs) make_again(graph, node, reader);
  }
  return graph;
}

}  // namespace caravan
