#include "runtime/passes/merge_loss.h"

#include <algorithm>

namespace caravan {
namespace {

// The number of nodes where nothing makes it.
size_t producer_of(const Graph& graph, ValueId id) {
  const auto found = std::ranges::find_if(graph.nodes, [&](const Node& node) {
    return std::ranges::find(node.outputs, id) != node.outputs.end();
  });
  return static_cast<size_t>(found - graph.nodes.begin());
}

bool is_gradient_of(const Graph& graph, const Node& gradient, const Node& loss) {
  if (!std::holds_alternative<LinearCrossEntropyGrad>(gradient.op)) return false;
  if (!std::equal(loss.inputs.begin(), loss.inputs.end(), gradient.inputs.begin())) return false;
  const size_t dloss = producer_of(graph, gradient.inputs[3]);
  return dloss < graph.nodes.size() && std::holds_alternative<Fill>(graph.nodes[dloss].op);
}

}  // namespace

// Only behind the loss: a gradient that has taken the place of an equal loss stays there. dloss_sum
// may be there already, for another loss.
Graph merge_loss(Graph graph) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!std::holds_alternative<LinearCrossEntropy>(graph.nodes[i].op)) continue;
    const auto loss = graph.nodes.begin() + static_cast<std::ptrdiff_t>(i);
    const auto gradient = std::find_if(loss + 1, graph.nodes.end(), [&](const Node& node) {
      return is_gradient_of(graph, node, *loss);
    });
    if (gradient == graph.nodes.end()) continue;
    std::ranges::copy(loss->outputs, gradient->outputs.begin());
    *loss = std::move(*gradient);
    graph.nodes.erase(gradient);
    const size_t dloss = producer_of(graph, loss->inputs[3]);
    if (dloss < i) continue;
    const auto fill = graph.nodes.begin() + static_cast<std::ptrdiff_t>(dloss);
    std::rotate(loss, fill, fill + 1);
  }
  return graph;
}

}  // namespace caravan
