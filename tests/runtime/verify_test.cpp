// verify() finds every kind of damage, and says where.
#include <gtest/gtest.h>

#include <functional>

#include "runtime/builder.h"
#include "runtime/error.h"

namespace caravan {
namespace {

// in, other -> add -> norm; state accumulates the norm; the sum is an output and an update.
Graph sound_graph() {
  Graph graph;
  Builder b(graph);
  const auto scope = b.scope("part");
  const Val in = b.input("in", {4, 8}, DType::f32);
  const Val other = b.input("other", {4, 8}, DType::f32);
  const Val weight = b.parameter("weight", {8}, {});
  const Val state = b.persistent(ValueKind::state, "state", {4, 8}, {});
  const Val sum = b.add(in, other);
  const Val normed = b.rms_norm(sum, weight, 1e-5f);
  const Val keep = b.fill(1.0f);
  const Val total = b.accumulate(state, normed, keep);
  b.output("total", total);
  b.update(state, total);
  return graph;
}

size_t position(const Graph& graph, std::string_view op) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (name(graph.nodes[i].op) == op) return i;
  }
  throw internal_error("no such op in the test's graph");
}

std::string message_after(const std::function<void(Graph&)>& damage) {
  Graph graph = sound_graph();
  damage(graph);
  try {
    verify(graph, "some_pass");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::internal);
    return error.what();
  }
  return "nothing was thrown";
}

void expect_finds(const std::string& words, const std::function<void(Graph&)>& damage) {
  const std::string message = message_after(damage);
  EXPECT_TRUE(message.starts_with("after some_pass: ")) << message;
  EXPECT_NE(message.find(words), std::string::npos) << message;
}

TEST(Verify, AcceptsASoundGraph) { EXPECT_NO_THROW(verify(sound_graph(), "build")); }

TEST(Verify, FindsReadsBeforeDefinition) {
  expect_finds("add (part) reads %0", [](Graph& g) { g.values[0].kind = ValueKind::activation; });
  expect_finds("rms_norm (part) reads", [](Graph& g) { std::swap(g.nodes[0], g.nodes[1]); });
}

TEST(Verify, FindsValuesThatAreNotThere) {
  expect_finds("reads", [](Graph& g) { g.nodes[0].inputs[1] = static_cast<ValueId>(999); });
  expect_finds("reads", [](Graph& g) { g.nodes[0].inputs[1] = ValueId::none; });
}

TEST(Verify, FindsSecondDefinitions) {
  expect_finds("add (part) defines %4 again",
               [](Graph& g) { g.nodes.insert(g.nodes.begin() + 1, g.nodes[0]); });
  expect_finds("defines %1 again", [](Graph& g) { g.nodes[0].outputs[0] = g.find("other"); });
}

TEST(Verify, FindsReadsOfWhatWasOverwritten) {
  expect_finds("was overwritten in place", [](Graph& g) {
    const ValueId state = g.find("state");
    const Value& like = g.value(state);
    const ValueId late = g.add_value({.name = {}, .shape = like.shape, .global_shape = like.shape});
    g.add_node({.op = Add{}, .inputs = {state, state}, .outputs = {late}});
  });
}

TEST(Verify, FindsWrongShapes) {
  expect_finds("outputs of other shapes", [](Graph& g) {
    g.value(g.nodes[0].outputs[0]).shape = {4, 9};
  });
  expect_finds("outputs of other shapes", [](Graph& g) {
    g.value(g.nodes[position(g, "fill")].outputs[0]).dtype = DType::i32;
  });
}

TEST(Verify, AsksTheRulesOfOps) {
  try {
    Graph graph = sound_graph();
    graph.value(graph.find("weight")).shape = {9};
    verify(graph, "some_pass");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("[rms_norm]"), std::string::npos) << error.what();
  }
}

TEST(Verify, FindsOutputsThatAreNotThere) {
  expect_finds("output 'total'", [](Graph& g) { g.nodes.pop_back(); });
  expect_finds("output 'gone'", [](Graph& g) { g.outputs.emplace_back("gone", ValueId(999)); });
  expect_finds("output 'old'", [](Graph& g) { g.outputs.emplace_back("old", g.find("state")); });
}

TEST(Verify, FindsWrongUpdates) {
  expect_finds("the update of", [](Graph& g) {  // only persistent values have updates
    g.updates.emplace_back(g.nodes[0].outputs[0], g.nodes[0].outputs[0]);
  });
  expect_finds("the update of 'state' is not there", [](Graph& g) {
    g.updates[0].second = g.find("state");  // overwritten
  });
  expect_finds("the update of 'weight' has another shape",
               [](Graph& g) { g.updates.emplace_back(g.find("weight"), g.nodes[0].outputs[0]); });
}

}  // namespace
}  // namespace caravan
