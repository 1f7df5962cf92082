// ZeRO 3: what is sharded, what is gathered for whom, and what the update then has to move.
#include "parallel/shard_parameters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/parallelize.h"
#include "runtime/builder.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

std::string placement_of(const Shape& shape, const Placement& declared, const Mesh& mesh) {
  Graph graph;
  Builder b(graph);
  b.parameter("w", shape, {}, declared);
  return to_string(shard_parameters(std::move(graph), mesh).values[0].placement);
}

TEST(ShardParameters, MatricesByRowsWithinTheirPart) {
  const Placement by_tp = Placement{}.with(Axis::tp, shard(0));
  const Mesh mesh{{2, 1, 2}};
  EXPECT_EQ(placement_of({8, 6}, {}, mesh), "S(0)@dp");
  EXPECT_EQ(placement_of({9, 6}, {}, mesh), "S(0)@dp");  // uneven
  EXPECT_EQ(placement_of({8, 6}, by_tp, mesh), "S(0)@dp S(0)@tp");
  EXPECT_EQ(placement_of({8}, {}, mesh), "");
}

// One expert on a rank of ep has no half: its rows are shared instead.
TEST(ShardParameters, ExpertsByTheFirstDimThatDivides) {
  const Placement by_ep = Placement{}.with(Axis::ep, shard(0));
  EXPECT_EQ(placement_of({8, 6, 4}, by_ep, Mesh{{2, 4, 1}}), "S(0)@dp S(0)@ep");
  EXPECT_EQ(placement_of({4, 6, 4}, by_ep, Mesh{{2, 4, 1}}), "S(1)@dp S(0)@ep");
  EXPECT_EQ(placement_of({4, 6, 4}, by_ep, Mesh{{4, 4, 1}}), "S(2)@dp S(0)@ep");
  EXPECT_EQ(placement_of({4, 6, 4}, by_ep.with(Axis::tp, shard(2)), Mesh{{2, 4, 2}}),
            "S(1)@dp S(0)@ep S(2)@tp");
  EXPECT_EQ(placement_of({4, 6, 4}, by_ep, Mesh{{5, 4, 1}}), "S(0)@dp S(0)@ep");
}

TrainingRun sharded_run(int accumulation_steps) {
  TrainingRun run = tiny_run();
  run.mesh.sizes = {2, 1, 1};
  run.optimizer.zero_stage = 3;
  run.accumulation_steps = accumulation_steps;
  return run;
}

bool is_matrix(const Value& value) { return value.global_shape.size() == 2; }

TEST(ShardParameters, WeightsGradientsAndMomentsAreHalves) {
  const Graph graph = training_graphs(sharded_run(2))[0].graph;
  int num_matrices = 0;
  for (const Value& value : graph.values) {
    if (!is_persistent(value.kind) || !is_matrix(value)) continue;
    ++num_matrices;
    EXPECT_EQ(value.placement, Placement{}.with(Axis::dp, shard(0))) << value.name;
    EXPECT_EQ(value.shape[0], (value.global_shape[0] + 1) / 2) << value.name;
  }
  EXPECT_EQ(num_matrices, 16 * 4);  // weight, sum of gradients, two moments
}

// Forward and backward each gather for themselves, and nothing of it outlives the nodes of a layer.
TEST(ShardParameters, EveryLayerGathersItsOwn) {
  const Graph graph = training_graphs(sharded_run(1))[0].graph;
  std::map<std::string, int> gathers;
  for (const Node& node : graph.nodes) {
    if (!std::holds_alternative<AllGather>(node.op)) continue;
    const Value& shard = graph.value(node.inputs[0]);
    if (shard.kind == ValueKind::parameter) ++gathers[shard.name];
    for (const Node& reader : graph.nodes) {
      const bool reads = std::ranges::find(reader.inputs, node.outputs[0]) != reader.inputs.end();
      EXPECT_TRUE(!reads || reader.layer == node.layer) << shard.name;
    }
  }
  EXPECT_EQ(gathers.size(), 16u);
  for (const auto& [name, count] : gathers) {
    EXPECT_EQ(count, name.starts_with("model.layers.") ? 2 : 1) << name;
  }
}

// What AdamW leaves is the weight: nothing is gathered after it.
TEST(ShardParameters, UpdatesInPlace) {
  const Graph graph = training_graphs(sharded_run(1))[0].graph;
  const auto maker = [&](ValueId id) {
    return std::ranges::find_if(graph.nodes, [id](const Node& node) {
      return std::ranges::find(node.outputs, id) != node.outputs.end();
    });
  };
  int num_matrices = 0;
  for (const auto& [target, source] : graph.updates) {
    if (graph.value(target).kind != ValueKind::parameter || !is_matrix(graph.value(target)))
      continue;
    ++num_matrices;
    const Node& node = *maker(source);
    EXPECT_TRUE(std::holds_alternative<AdamW>(node.op)) << graph.value(target).name;
    EXPECT_EQ(node.inputs[0], target);
  }
  EXPECT_EQ(num_matrices, 16);
}

// A table is gathered to be read, not for its gradient.
TEST(ShardParameters, TheGradientOfATableGathersNothing) {
  TrainingRun run = sharded_run(1);
  run.model.tie_word_embeddings = true;
  const Graph graph = training_graphs(run)[0].graph;
  int num_gathers = 0;
  for (const Node& node : graph.nodes) {
    if (!std::holds_alternative<AllGather>(node.op)) continue;
    if (graph.value(node.inputs[0]).name == "model.embed_tokens.weight") ++num_gathers;
  }
  EXPECT_EQ(num_gathers, 2);  // embedding, and projection with its gradient
}

}  // namespace
}  // namespace caravan
