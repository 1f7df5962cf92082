// The text of a graph, pass by pass, against golden files; lookups.
#include "runtime/graph.h"

#include <gtest/gtest.h>

#include "parallel/parallelize.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "tests/support/golden.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

// One layer, so that a person can read the dumps.
TrainingRun readable_run() {
  TrainingRun run = tiny_run();
  run.model.num_hidden_layers = 1;
  run.model.attention_bias = run.model.mlp_bias = false;
  run.num_sequences = 4;
  return run;
}

TEST(Dump, ForwardBackwardAndUpdate) {
  expect_golden("llama_update.txt", dump(logical_update_graph(readable_run())));
}

TEST(Dump, DataParallelWithZero) {
  TrainingRun run = readable_run();
  run.mesh.sizes = {2, 1, 1};
  run.optimizer.zero_stage = 1;
  run.accumulation_steps = 2;
  run.bucket_bytes = 8192;
  for (const NamedGraph& graph : training_graphs(run)) {
    expect_golden("llama_dp2_zero1_" + graph.name + ".txt", dump(graph.graph));
  }
}

TEST(Dump, TensorParallel) {
  TrainingRun run = readable_run();
  run.mesh.sizes = {1, 1, 2};
  expect_golden("llama_tp2_update.txt", dump(training_graphs(run)[0].graph));
}

TEST(Graph, FindsByName) {
  const Graph graph = logical_update_graph(readable_run());
  EXPECT_EQ(graph.value(graph.find("model.norm.weight")).shape, Shape{32});
  EXPECT_EQ(graph.find("model.norm.wait"), ValueId::none);
  EXPECT_TRUE(graph.value(graph.output("loss")).shape.empty());
  EXPECT_THROW(graph.output("lost"), Error);
}

TEST(Builder, RefusesASecondValueOfAName) {
  Graph graph;
  Builder b(graph);
  b.parameter("weight", {2}, {});
  EXPECT_THROW(b.parameter("weight", {2}, {}), Error);
  EXPECT_THROW(b.input("weight", {2}, DType::f32), Error);
}

TEST(Builder, ScopesNest) {
  Graph graph;
  Builder b(graph);
  {
    const auto layer = b.scope("layers", 3);
    const auto part = b.scope("mlp");
    b.fill(1);
  }
  b.fill(2);
  EXPECT_EQ(graph.nodes[0].scope, "layers.3.mlp");
  EXPECT_EQ(graph.nodes[0].layer, 3);
  EXPECT_EQ(graph.nodes[1].scope, "");
  EXPECT_EQ(graph.nodes[1].layer, -1);
}

}  // namespace
}  // namespace caravan
