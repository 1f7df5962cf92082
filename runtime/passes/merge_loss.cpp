#include "runtime/passes/merge_loss.h"

#include <algorithm>

namespace caravan {
namespace {

const Node* producer_of(const Graph& graph, ValueId id) {
  const auto found = std::ranges::find_if(graph.nodes, [&](const Node& node) {
    return std::ranges::find(node.outputs, id) != node.outputs.end();
  });
  return found == graph.nodes.end() ? nullptr : &*found;
}

bool is_gradient_of(const Graph& graph, const Node& gradient, const Node& loss) {
  if (!std::holds_alternative<LinearCrossEntropyGrad>(gradient.op)) return false;
  if (!std::equal(loss.inputs.begin(), loss.inputs.end(), gradient.inputs.begin())) return false;
  const Node* dloss = producer_of(graph, gradient.inputs[3]);
  return dloss != nullptr && std::holds_alternative<Fill>(dloss->op);
}

}  // namespace

Graph merge_loss(Graph graph) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!std::holds_alternative<LinearCrossEntropy>(graph.nodes[i].op)) continue;
    const auto found = std::ranges::find_if(
        graph.nodes, [&](const Node& node) { return is_gradient_of(graph, node, graph.nodes[i]); });
    if (found == graph.nodes.end()) continue;
    Node merged = *found;
    std::ranges::copy(graph.nodes[i].outputs, merged.outputs.begin());
    Node dloss = *producer_of(graph, merged.inputs[3]);
    graph.nodes.erase(found);
    std::erase_if(graph.nodes, [&](const Node& node) { return node.outputs == dloss.outputs; });
    graph.nodes[i] = std::move(merged);
    graph.nodes.insert(graph.nodes.begin() + static_cast<std::ptrdiff_t>(i), std::move(dloss));
  }
  return graph;
}

}  // namespace caravan
