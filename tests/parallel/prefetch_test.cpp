// Weights that are gathered one layer ahead: where the gathers come to stand, and what is alive.
#include "parallel/prefetch.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_join.h"
#include "parallel/parallelize.h"
#include "runtime/builder.h"
#include "runtime/passes/plan_memory.h"
#include "runtime/passes/schedule.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

const Mesh kTwoRanks{{2, 1, 1}};
const Placement kSharded = Placement{}.with(Axis::dp, shard(0));

// x times one square matrix after the other: for each, its layer and width.
Graph chain(const std::vector<std::pair<int, std::string>>& weights, DType dtype = DType::f32) {
  Graph graph;
  Builder b(graph);
  Val x = b.input("x", {8, 16}, dtype, kSharded);
  for (const auto& [layer, name] : weights) {
    const auto scope = b.scope("layers", layer);
    x = b.linear(x, b.parameter(name, {16, 16}, {}, kSharded));
  }
  b.output("y", x);
  return graph;
}

// "~a +a a": what each node reads of the weights; a cast, a gather, a product.
std::string order_of(const Graph& graph) {
  std::vector<std::string> words;
  std::vector<std::string> names(graph.values.size());
  for (size_t i = 0; i < names.size(); ++i) names[i] = graph.values[i].name;
  for (const Node& node : graph.nodes) {
    const bool is_gather = std::holds_alternative<AllGather>(node.op);
    const std::string& weight = names[index(node.inputs[is_gather ? 0 : node.inputs.size() - 1])];
    const bool is_cast = std::holds_alternative<Cast>(node.op);
    if (is_gather || is_cast) names[index(node.outputs[0])] = weight;
    if (is_gather && weight.empty()) continue;  // the result
    words.push_back((is_gather ? "+" : is_cast ? "~" : "") + weight);
  }
  return absl::StrJoin(words, " ");
}

TEST(Prefetch, GathersOneLayerAhead) {
  const Graph graph =
      parallelize(chain({{0, "a"}, {0, "b"}, {1, "c"}, {1, "d"}, {2, "e"}, {2, "f"}}), kTwoRanks);
  EXPECT_EQ(order_of(graph), "+a a +b b +c c +d d +e e +f f");
  EXPECT_EQ(order_of(prefetch(graph)), "+a +b +c a +d b +e c +f d e f");
  EXPECT_EQ(order_of(reorder(prefetch(graph))), "+a +b +c a +d b +e c +f d e f");
}

// Shards are cast where they lie, right before they are gathered.
TEST(Prefetch, CastsComeAlong) {
  const Graph graph = parallelize(chain({{0, "a"}, {1, "b"}, {2, "c"}}, DType::bf16), kTwoRanks);
  EXPECT_EQ(order_of(graph), "~a +a a ~b +b b ~c +c c");
  EXPECT_EQ(order_of(prefetch(graph)), "~a +a ~b +b a ~c +c b c");
  EXPECT_EQ(order_of(reorder(prefetch(graph))), "~a +a ~b +b a ~c +c b c");
}

// As many bytes ahead as a layer has, where layers differ.
TEST(Prefetch, LayersOfDifferentSizesKeepStep) {
  const Graph graph = parallelize(
      chain({{0, "a"}, {1, "b"}, {1, "c"}, {1, "d"}, {1, "e"}, {2, "f"}, {2, "g"}}), kTwoRanks);
  EXPECT_EQ(order_of(prefetch(graph)), "+a +b +c +d +e a +f b c +g d e f g");
}

TEST(Prefetch, NothingToGatherIsLeftAlone) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {8, 16}, DType::f32, kSharded);
  b.output("y", b.linear(x, b.parameter("w", {16, 16}, {})));
  const Graph placed = parallelize(graph, kTwoRanks);
  EXPECT_EQ(dump(prefetch(placed)), dump(placed));
}

TrainingRun sharded_run(int num_layers) {
  TrainingRun run = tiny_run();
  run.model.num_hidden_layers = num_layers;
  run.mesh = kTwoRanks;
  run.optimizer.zero_stage = 3;
  return run;
}

int64_t bytes_of_layer(const Graph& graph) {
  int64_t bytes = 0;
  for (const Value& value : graph.values) {
    const bool is_matrix = value.kind == ValueKind::parameter && value.global_shape.size() == 2;
    if (is_matrix && value.name.starts_with("model.layers.0.")) {
      bytes += num_elements(value.global_shape) * 4;
    }
  }
  return bytes;
}

int64_t most_gathered_bytes(const Graph& graph, const Mesh& mesh) {
  const std::vector<const Graph*> graphs = {&graph};
  MemoryPlan plan =
      plan_memory(graph, schedule(graph), mesh, plan_persistent(graphs, mesh), PlanOptions{});
  std::erase_if(plan.blocks,
                [](const Block& block) { return block.category != MemoryCategory::weights; });
  return std::ranges::max(live_bytes(plan, graph.nodes.size()));
}

// However many layers there are, the weights of two are the most that is there; and without a
// prefetch it would be a single one.
TEST(Prefetch, AtMostTwoLayersAreAlive) {
  for (const int num_layers : {3, 8}) {
    const Graph graph = training_graphs(sharded_run(num_layers))[0].graph;
    const int64_t layer = bytes_of_layer(graph);
    EXPECT_GE(most_gathered_bytes(graph, kTwoRanks), layer);
    EXPECT_LE(most_gathered_bytes(graph, kTwoRanks), 2 * layer);
  }
}

// The same of weights that are gathered as bf16: half of the bytes, and of each also the shard that
// was cast.
TEST(Prefetch, TwoLayersOfBf16TakeHalf) {
  TrainingRun run = sharded_run(8);
  run.dtype = DType::bf16;
  const Graph graph = training_graphs(run)[0].graph;
  const int64_t layer = bytes_of_layer(graph) / 2;
  EXPECT_GE(most_gathered_bytes(graph, kTwoRanks), layer);
  EXPECT_LE(most_gathered_bytes(graph, kTwoRanks), 2 * layer + 2 * layer / 2);
}

// In forward and in backward each weight of a layer is there before the layer begins.
TEST(Prefetch, LayersWaitForNoGatherOfTheirOwn) {
  const Graph graph = training_graphs(sharded_run(4))[0].graph;
  int num_gathers = 0;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& gather = graph.nodes[i];
    const bool reads_weight = std::holds_alternative<AllGather>(gather.op) && gather.layer >= 0;
    if (!reads_weight) continue;
    ++num_gathers;
    const Node* last_compute = nullptr;  // of a layer, before the gather
    for (size_t j = 0; j < i; ++j) {
      if (!is_collective(graph.nodes[j].op)) last_compute = &graph.nodes[j];
    }
    if (last_compute == nullptr) continue;
    EXPECT_NE(last_compute->layer, gather.layer) << gather.scope;
  }
  EXPECT_EQ(num_gathers, 2 * 4 * 7);
}

}  // namespace
}  // namespace caravan
