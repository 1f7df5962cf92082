#include "runtime/passes/fuse_add.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/builder.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

constexpr int64_t kTokens = 5, kHidden = 3;

struct Model {
  Graph graph;
  Builder b{graph};
  Val x = b.parameter("x", {kTokens, kHidden}, {});
  Val w = b.parameter("w", {kHidden, kHidden}, {});
  Val product() { return b.linear(x, w); }
  void output(Val value) { graph.outputs.emplace_back("y", value); }
};

std::vector<Addend> addends(const Graph& graph) {
  std::vector<Addend> all;
  for (const Node& node : graph.nodes) all.push_back(addend(node.op));
  return all;
}

bool has_add(const Graph& graph) {
  return std::ranges::any_of(graph.nodes,
                             [](const Node& node) { return std::holds_alternative<Add>(node.op); });
}

HostTensor result_of(const Graph& graph) {
  return run_on_ranks({{"model", graph}}, Mesh{}, {},
                      [&](ProgramRunner& runner) {
                        runner.set("x", normal_tensor({kTokens, kHidden}, 1));
                        runner.set("w", normal_tensor({kHidden, kHidden}, 2));
                        runner.run("model", {});
                        runner.record_output("y", "model", "y");
                      })
      .at("y");
}

Graph checked(const Graph& graph) {
  Graph fused = fuse_add(graph);
  verify(fused, "fuse_add");
  EXPECT_LT(relative_difference(result_of(fused), result_of(graph)), 1e-6);
  return fused;
}

TEST(FuseAdd, AddsToAParameterWithoutChangingIt) {
  Model m;
  m.output(m.b.add(m.x, m.product()));
  EXPECT_EQ(addends(checked(m.graph)), (std::vector{Addend::separate}));
}

// The sum of three products lies in the first one's storage.
TEST(FuseAdd, SumsInPlaceWhatNobodyElseReads) {
  Model m;
  const Val first = m.product(), second = m.product();
  const Val both = m.b.add(first, second);
  const Val third = m.product();
  m.output(m.b.add(third, both));
  const Graph fused = checked(m.graph);
  EXPECT_EQ(addends(fused), (std::vector{Addend::none, Addend::in_place, Addend::in_place}));
}

TEST(FuseAdd, KeepsAnAddendThatIsReadAgain) {
  Model m;
  const Val first = m.product(), second = m.product();
  const Val sum = m.b.add(first, second);
  m.output(m.b.add(m.b.swiglu(first, first), sum));
  const Graph fused = checked(m.graph);
  EXPECT_EQ(std::ranges::count(addends(fused), Addend::separate), 1);
  EXPECT_TRUE(has_add(fused)) << "of an op that takes no addend";
}

TEST(FuseAdd, LeavesAResultThatIsReadTwice) {
  Model m;
  const Val product = m.product();
  m.output(m.b.swiglu(m.b.add(m.x, product), product));
  EXPECT_EQ(dump(checked(m.graph)), dump(m.graph));
}

TEST(FuseAdd, LeavesAnAddendThatComesLater) {
  Model m;
  const Val product = m.product();
  m.output(m.b.add(product, m.b.swiglu(m.x, m.x)));
  EXPECT_EQ(dump(checked(m.graph)), dump(m.graph));
}

TEST(FuseAdd, LeavesTwiceTheSame) {
  Model m;
  const Val product = m.product();
  m.output(m.b.add(product, product));
  EXPECT_EQ(dump(checked(m.graph)), dump(m.graph));
}

}  // namespace
}  // namespace caravan
