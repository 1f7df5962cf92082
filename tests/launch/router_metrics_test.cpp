// What is made of the sums of routers, by hand; and which outputs of a program they come from.
#include "launch/router_metrics.h"

#include <gtest/gtest.h>

#include "runtime/builder.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

// A program that gives its inputs as the outputs of routers.
Graph graph_with_routers(const std::vector<int>& layers, int64_t num_experts) {
  Graph graph;
  Builder b(graph);
  const auto output = [&](const std::string& name, const Shape& shape) {
    b.output(name, b.input("in." + name, shape, DType::f32));
  };
  b.output("loss", b.fill(1));
  for (const int layer : layers) {
    const std::string router = "router." + std::to_string(layer);
    output(router + ".load", {num_experts});
    output(router + ".dropped", {});
    output(router + ".further", {});
  }
  return graph;
}

TEST(RouterMetrics, ModelsWithoutRoutersHaveNone) {
  RouterMetrics none(graph_with_routers({}, 4), 1);
  EXPECT_TRUE(none.empty());
  none.update();
  EXPECT_TRUE(none.groups().empty());
}

TEST(RouterMetrics, CountsByHand) {
  RouterMetrics metrics(graph_with_routers({1, 3}, 4), 8);
  ASSERT_EQ(metrics.sums().size(), 2u);
  metrics.sums()[0].load = {10, 20, 30, 40};  // mean 25
  metrics.sums()[0].further = 4;
  metrics.sums()[1].load = {0, 0, 60, 40};
  metrics.sums()[1].dropped = 5;
  metrics.update();
  ASSERT_EQ(metrics.groups().size(), 2u);
  const RouterGroup& first = metrics.groups()[0];
  EXPECT_EQ(first.first_layer, 1);
  EXPECT_EQ(first.last_layer, 1);
  EXPECT_DOUBLE_EQ(first.load_max_mean, 1.6);
  EXPECT_DOUBLE_EQ(first.passes, 1.5);
  EXPECT_EQ(first.dropped_share, 0);
  EXPECT_EQ(first.dead_experts, 0);
  const RouterGroup& second = metrics.groups()[1];
  EXPECT_DOUBLE_EQ(second.load_max_mean, 2.4);
  EXPECT_DOUBLE_EQ(second.passes, 1);
  EXPECT_DOUBLE_EQ(second.dropped, 5);
  EXPECT_DOUBLE_EQ(second.dropped_share, 0.05);
  EXPECT_EQ(second.dead_experts, 2);
  const RouterGroup& all = metrics.all();
  EXPECT_EQ(all.first_layer, 1);
  EXPECT_EQ(all.last_layer, 3);
  EXPECT_DOUBLE_EQ(all.load_max_mean, 2.4);
  EXPECT_DOUBLE_EQ(all.passes, 1.25);
  EXPECT_DOUBLE_EQ(all.dropped_share, 0.025);
  EXPECT_EQ(all.dead_experts, 2);
}

TEST(RouterMetrics, DeepModelsHaveFourGroups) {
  std::vector<int> layers;
  for (int layer = 40; layer >= 0; layer -= 4) layers.push_back(layer);  // 11, in no order
  RouterMetrics metrics(graph_with_routers(layers, 2), 1);
  for (RouterMetrics::Sums& sums : metrics.sums()) {
    sums.load = {1, 1};
    sums.load[0] += static_cast<float>(sums.layer == 20);  // 2 : 1
  }
  metrics.update();
  ASSERT_EQ(metrics.groups().size(), kMostRouterGroups);
  EXPECT_EQ(metrics.groups()[0].first_layer, 0);
  for (size_t i = 1; i < kMostRouterGroups; ++i) {
    EXPECT_EQ(metrics.groups()[i].first_layer, metrics.groups()[i - 1].last_layer + 4);
  }
  EXPECT_EQ(metrics.groups()[3].last_layer, 40);
  EXPECT_DOUBLE_EQ(metrics.groups()[2].load_max_mean, 4.0 / 3);
  EXPECT_DOUBLE_EQ(metrics.groups()[1].load_max_mean, 1);
}

TEST(RouterMetrics, NobodyPicksAnything) {
  RouterMetrics metrics(graph_with_routers({0}, 3), 1);
  metrics.update();
  EXPECT_EQ(metrics.all().load_max_mean, 0);
  EXPECT_EQ(metrics.all().dropped_share, 0);
  EXPECT_EQ(metrics.all().dead_experts, 3);
}

TEST(RouterMetrics, ReadsTheOutputsOfAProgram) {
  const Graph graph = graph_with_routers({0, 2}, 3);
  run_on_ranks({{"update", graph}}, Mesh{}, {}, [&](ProgramRunner& runner) {
    HostTensors inputs;
    float number = 1;
    for (const auto& [name, id] : graph.outputs) {
      if (name == "loss") continue;
      HostTensor& tensor = inputs["in." + name] = zeros(graph.value(id).shape);
      for (int64_t i = 0; i < tensor.size(); ++i) tensor.set(i, number++);
    }
    runner.run("update", inputs);
    RouterMetrics metrics(graph, 1);
    metrics.read(runner.executor("update"));
    EXPECT_EQ(metrics.sums()[0].load, (std::vector<float>{1, 2, 3}));
    EXPECT_EQ(metrics.sums()[0].dropped, 4);
    EXPECT_EQ(metrics.sums()[0].further, 5);
    EXPECT_EQ(metrics.sums()[1].load, (std::vector<float>{6, 7, 8}));
    EXPECT_EQ(metrics.sums()[1].dropped, 9);
    EXPECT_EQ(metrics.sums()[1].further, 10);
  });
}

}  // namespace
}  // namespace caravan
