#include "parallel/prefetch.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr size_t kNone = static_cast<size_t>(-1);

struct Gather {
  size_t cast;  // of the shard that is gathered, or kNone
  size_t node;
  size_t reader;       // the first
  int64_t begin_byte;  // of all that its layer gathers
};

// The gathers of one layer, in order; forward and backward are layers of their own.
struct Layer {
  int number;
  int64_t bytes = 0;
  std::vector<Gather> gathers;

  double begin(const Gather& gather) const {
    return static_cast<double>(gather.begin_byte) / static_cast<double>(bytes);
  }
};

bool is_parameter(const Graph& graph, ValueId id) {
  return graph.value(id).kind == ValueKind::parameter;
}

// By value: the node that casts it from a parameter, or kNone.
std::vector<size_t> casts_of(const Graph& graph) {
  std::vector<size_t> casts(graph.values.size(), kNone);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (!std::holds_alternative<Cast>(node.op) || !is_parameter(graph, node.inputs[0])) continue;
    casts[index(node.outputs[0])] = i;
  }
  return casts;
}

// Of those that are read; what is gathered for an update is none.
std::vector<Layer> layers_of(const Graph& graph) {
  const std::vector<size_t> casts = casts_of(graph);
  std::vector<Layer> layers;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (!std::holds_alternative<AllGather>(node.op)) continue;
    const size_t cast = casts[index(node.inputs[0])];
    if (cast == kNone && !is_parameter(graph, node.inputs[0])) continue;
    size_t reader = i + 1;
    const auto reads = [&](const Node& other) {
      return std::ranges::find(other.inputs, node.outputs[0]) != other.inputs.end();
    };
    while (reader < graph.nodes.size() && !reads(graph.nodes[reader])) ++reader;
    if (reader == graph.nodes.size()) continue;
    if (layers.empty() || layers.back().number != node.layer)
      layers.push_back({.number = node.layer, .gathers = {}});
    Layer& layer = layers.back();
    layer.gathers.push_back({cast, i, reader, layer.bytes});
    layer.bytes += graph.value(node.outputs[0]).bytes();
  }
  return layers;
}

// The reader in the layer before that comes when the same part of its weights has been read.
size_t place_in(const Layer& before, double part) {
  size_t place = before.gathers.front().reader;
  for (const Gather& gather : before.gathers) {
    if (before.begin(gather) <= part) place = gather.reader;
  }
  return place;
}

}  // namespace

Graph prefetch(Graph graph) {
  check(graph.repeats.empty(), "prefetch comes before nodes that repeat");
  const std::vector<Layer> layers = layers_of(graph);
  std::vector<std::vector<size_t>> moved_before(graph.nodes.size());  // by node
  std::vector<bool> is_moved(graph.nodes.size(), false);
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const Gather& gather : layers[i].gathers) {
      const size_t place = i == 0 ? 0 : place_in(layers[i - 1], layers[i].begin(gather));
      if (place > gather.node) continue;
      for (const size_t moved : {gather.cast, gather.node}) {
        if (moved == kNone || moved < place || is_moved[moved]) continue;
        moved_before[place].push_back(moved);
        is_moved[moved] = true;
      }
    }
  }
  std::vector<Node> nodes;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const size_t moved : moved_before[i]) nodes.push_back(graph.nodes[moved]);
    if (!is_moved[i]) nodes.push_back(graph.nodes[i]);
  }
  graph.nodes = std::move(nodes);
  return graph;
}

}  // namespace caravan
