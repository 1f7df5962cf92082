#include "runtime/passes/prune.h"

#include <algorithm>

namespace caravan {

Graph prune(Graph graph) {
  std::vector<bool> needed(graph.values.size(), false);
  for (const auto& [name, id] : graph.outputs) needed[index(id)] = true;
  for (const auto& [target, source] : graph.updates) needed[index(source)] = true;
  std::vector<Node> kept;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    const bool used =
        std::ranges::any_of(node->outputs, [&](ValueId id) { return needed[index(id)]; });
    if (!used) continue;
    for (const ValueId id : node->inputs) needed[index(id)] = true;
    kept.push_back(std::move(*node));
  }
  std::ranges::reverse(kept);
  graph.nodes = std::move(kept);
  return graph;
}

}  // namespace caravan
