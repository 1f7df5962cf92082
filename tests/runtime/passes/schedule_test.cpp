// Order and streams: hazards by hand, and random graphs that must compute the same in any order.
#include "runtime/passes/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "tests/support/random_graph.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

std::vector<std::string> op_names(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes) names.emplace_back(name(node.op));
  return names;
}

Val emit_collective(Graph& graph, const Op& op, Val input, const Shape& shape) {
  const Val result = graph.add_value({.name = {}, .shape = shape, .global_shape = shape});
  graph.add_node({.op = op, .inputs = {input}, .outputs = {result}});
  return result;
}

TEST(Reorder, StartsCommunicationAsSoonAsItsInputIsThere) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4, 4}, DType::f32);
  const Val gradient = b.add(x, x);
  const Val more = b.swiglu(x, x);
  const Val most = b.swiglu(more, x);
  b.output("sum", emit_collective(graph, AllReduce{Axis::dp}, gradient, {4, 4}));
  b.output("most", most);
  const Graph ordered = reorder(graph);
  EXPECT_EQ(op_names(ordered), (std::vector<std::string>{"add", "all_reduce", "swiglu", "swiglu"}));
  EXPECT_EQ(ordered.nodes[1].stream, Stream::communication);
  EXPECT_EQ(ordered.nodes[2].stream, Stream::compute);
}

// Gathered parameters are needed where they are read, not all at the start.
TEST(Reorder, LeavesGathersOfParametersWhereTheyAreRead) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4, 4}, DType::f32);
  const Val weight = b.parameter("weight", {2, 4}, {});
  const Val first = b.add(x, x);
  const Val whole = emit_collective(graph, AllGather{Axis::dp, 0}, weight, {4, 4});
  b.output("y", b.add(first, whole));
  EXPECT_EQ(op_names(reorder(graph)), (std::vector<std::string>{"add", "all_gather", "add"}));
}

TEST(Reorder, AccumulatesAsSoonAsAGradientIsThere) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4}, DType::f32), keep = b.input("keep", {}, DType::f32);
  const Val sum = b.persistent(ValueKind::accumulator, "sum", {4}, {});
  const Val gradient = b.add(x, x);
  b.output("later", b.swiglu(x, x));
  b.update(sum, b.accumulate(sum, gradient, keep));
  EXPECT_EQ(op_names(reorder(graph)), (std::vector<std::string>{"add", "accumulate", "swiglu"}));
}

// Writing in place waits for every reader of the old contents, also of views of them.
TEST(Reorder, ReadersComeBeforeTheOverwriter) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4, 4}, DType::f32), keep = b.input("keep", {}, DType::f32);
  const Val sum = b.persistent(ValueKind::accumulator, "sum", {4, 4}, {});
  const Val gradient = b.add(x, x);
  const Val view = emit_collective(graph, Slice{Axis::dp, 0}, sum, {2, 4});
  const Val reads_view = b.swiglu(view, view);
  const Val reads_whole = b.swiglu(sum, x);
  b.update(sum, b.accumulate(sum, gradient, keep));
  b.output("a", reads_view);
  b.output("b", reads_whole);
  const Graph ordered = reorder(graph);
  verify(ordered, "schedule");
  EXPECT_EQ(op_names(ordered),
            (std::vector<std::string>{"add", "slice", "swiglu", "swiglu", "accumulate"}));
}

TEST(Reorder, ChainsInPlaceKeepTheirOrder) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4}, DType::f32), keep = b.input("keep", {}, DType::f32);
  const Val sum = b.persistent(ValueKind::accumulator, "sum", {4}, {});
  const Val once = b.accumulate(sum, x, keep);
  const Val between = b.add(once, x);
  const Val twice = b.accumulate(once, x, keep);
  b.output("between", between);
  b.update(sum, twice);
  const Graph ordered = reorder(graph);
  verify(ordered, "schedule");
  EXPECT_EQ(op_names(ordered), (std::vector<std::string>{"accumulate", "add", "accumulate"}));
}

TEST(Reorder, IsStable) {
  const Graph ordered = training_graphs(tiny_run())[0].graph;
  EXPECT_EQ(dump(reorder(ordered)), dump(ordered));
}

TEST(Reorder, FindsCycles) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4}, DType::f32);
  const Val y = b.add(x, x);
  b.output("z", b.add(y, x));
  graph.nodes[0].inputs[1] = graph.nodes[1].outputs[0];
  EXPECT_THROW(reorder(graph), Error);
}

HostTensors run_random(const RandomGraphOptions& options, const Graph& graph,
                       const RunnerOptions& runner_options) {
  HostTensors inputs;
  for (const Value& value : graph.values) {
    if (value.kind != ValueKind::input) continue;
    inputs[value.name] = normal_tensor(value.global_shape, inputs.size());
  }
  return run_on_ranks({{"random", graph}}, mesh_of(options), runner_options,
                      [&](ProgramRunner& runner) {
                        for (int i = 0; i < 3; ++i) {
                          runner.set("sum" + std::to_string(i), normal_tensor({8, 16}, 50 + i));
                        }
                        runner.set("weight", normal_tensor({16}, 60));
                        runner.run("random", inputs);
                        for (const auto& [name, id] : graph.outputs) {
                          runner.record_here(name, "random", name);
                        }
                      });
}

// As it was built, everything on one stream and no byte used twice, against the reordered graph
// with a communication thread and planned memory: the same bits on every rank.
TEST(Reorder, RandomGraphsComputeTheSame) {
  size_t num_collectives = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraphOptions options{.seed = seed};
    const Graph graph = random_graph(options);
    ASSERT_NO_THROW(verify(graph, "random"));
    const Graph ordered = reorder(graph);
    ASSERT_NO_THROW(verify(ordered, "schedule"));
    num_collectives += std::ranges::count(ordered.nodes, Stream::communication, &Node::stream);
    const HostTensors expected =
        run_random(options, graph, {.keep_all = true, .poison_freed = false, .overlap = false});
    EXPECT_EQ(run_random(options, ordered, {}), expected);
    EXPECT_EQ(run_random(options, ordered, {.poison_freed = false}), expected);
  }
  EXPECT_GT(num_collectives, 500u);
}

// A compute step waits for the communication whose result it reads or whose bytes it overwrites.
TEST(Schedule, WaitsForWhatItNeedsAndOnlyOnce) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {4, 4}, DType::f32);
  const Val a = emit_collective(graph, AllReduce{Axis::dp}, b.add(x, x), {4, 4});  // steps 0, 1
  b.output("unrelated", b.swiglu(x, x));                                           // 2
  const Val c = b.add(a, x);                                                       // 3: waits for 1
  b.output("d", b.add(c, a));                                                      // 4: has waited
  for (Node& node : graph.nodes) {
    if (is_collective(node.op)) node.stream = Stream::communication;
  }
  std::vector<int> waits;
  for (const Step& step : schedule(graph)) waits.push_back(step.wait_for);
  EXPECT_EQ(waits, (std::vector<int>{-1, -1, -1, 1, -1}));
}

TEST(Schedule, WaitsBeforeOverwritingWhatCommunicationReads) {
  Graph graph;
  Builder b(graph);
  const Val keep = b.input("keep", {}, DType::f32), x = b.input("x", {4, 4}, DType::f32);
  const Val sum = b.persistent(ValueKind::accumulator, "sum", {4, 4}, {});
  b.output("whole", emit_collective(graph, AllGather{Axis::dp, 0}, sum, {8, 4}));
  b.output("y", b.add(x, x));
  b.update(sum, b.accumulate(sum, x, keep));
  graph.nodes[0].stream = Stream::communication;
  const std::vector<Step> steps = schedule(graph);
  EXPECT_EQ(steps[1].wait_for, -1);
  EXPECT_EQ(steps[2].wait_for, 0);
}

}  // namespace
}  // namespace caravan
