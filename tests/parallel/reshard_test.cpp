// The table of moves, and each move on virtual ranks.
#include "parallel/reshard.h"

#include <gtest/gtest.h>

#include "runtime/error.h"
#include "runtime/mesh.h"
#include "runtime/passes/schedule.h"
#include "tests/support/program_runner.h"

namespace caravan {
namespace {

std::string_view move_name(AxisPlacement from, AxisPlacement to) {
  const std::optional<Op> op = reshard(Axis::tp, from, to);
  return op ? name(*op) : "nothing";
}

TEST(Reshard, FollowsTheTable) {
  EXPECT_EQ(move_name(kPartial, kReplicate), "all_reduce");
  EXPECT_EQ(move_name(kPartial, shard(1)), "reduce_scatter");
  EXPECT_EQ(move_name(shard(0), kReplicate), "all_gather");
  EXPECT_EQ(move_name(kReplicate, shard(1)), "slice");
  EXPECT_EQ(move_name(shard(0), shard(1)), "all_to_all");
  for (const AxisPlacement same : {kReplicate, kPartial, shard(0), shard(1)}) {
    EXPECT_EQ(move_name(same, same), "nothing");
  }
}

TEST(Reshard, KeepsAxisAndDims) {
  const Op op = *reshard(Axis::ep, shard(1), shard(0));
  EXPECT_EQ(collective_axis(op), Axis::ep);
  EXPECT_EQ(attributes(op), "axis=ep from_dim=1 to_dim=0");
}

TEST(Reshard, NothingBecomesPartial) {
  for (const AxisPlacement from : {kReplicate, shard(0)}) {
    try {
      reshard(Axis::dp, from, kPartial);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::internal);
      EXPECT_NE(std::string(error.what()).find("to P along dp"), std::string::npos);
    }
  }
}

struct Move {
  Shape shape;
  AxisPlacement from;
  AxisPlacement to;
  std::array<int, kNumAxes> mesh;
  Axis axis = Axis::dp;
};

// One node by hand: the graph of a rank that moves "x".
Graph move_graph(const Move& move, const Mesh& mesh) {
  const auto placed = [&](AxisPlacement p) { return Placement{}.with(move.axis, p); };
  Graph graph;
  Value x{.name = "x", .global_shape = move.shape, .kind = ValueKind::input};
  x.placement = placed(move.from);
  x.shape = local_shape(x.global_shape, x.placement, mesh);
  Value y = x;
  y.name = "y";
  y.kind = ValueKind::activation;
  y.placement = placed(move.to);
  y.shape = local_shape(y.global_shape, y.placement, mesh);
  // Room for equal parts of dim 0, as parallelize makes it.
  const auto pad = [&](Value& whole, const Value& part) {
    whole.padding_elements =
        num_elements(part.shape) * mesh.size(move.axis) - num_elements(whole.shape);
  };
  if (move.from == kPartial && move.to == shard(0)) pad(x, y);
  if (move.from == shard(0) && move.to == kReplicate) pad(y, x);
  const ValueId from = graph.add_value(x), to = graph.add_value(y);
  graph.add_node(
      {.op = *reshard(move.axis, move.from, move.to), .inputs = {from}, .outputs = {to}});
  graph.outputs = {{"y", to}};
  return reorder(graph);
}

void expect_moved(const Move& move) {
  const Mesh mesh{move.mesh};
  SCOPED_TRACE(to_string(move.shape) + " " + to_string(move.from) + " to " + to_string(move.to) +
               " on " + to_string(mesh));
  const Graph graph = move_graph(move, mesh);
  const HostTensor x = normal_tensor(move.shape, 3);
  const HostTensors result = run_on_ranks({{"move", graph}}, mesh, {}, [&](ProgramRunner& runner) {
    runner.run("move", {{"x", x}});
    runner.record_output("y", "move", "y");
  });
  // Parts of a partial value are small multiples of it by powers of two: the sum is exact.
  EXPECT_EQ(result.at("y"), x);
}

TEST(Reshard, MovesEvenTensors) {
  for (const int size : {2, 4}) {
    for (const Shape& shape : {Shape{8, 12}, Shape{4, 8, 4}}) {
      const int last = static_cast<int>(shape.size()) - 1;
      for (const AxisPlacement from : {kReplicate, kPartial, shard(0), shard(last)}) {
        for (const AxisPlacement to : {kReplicate, shard(0), shard(last)}) {
          if (from == to) continue;
          expect_moved({shape, from, to, {size, 1, 1}});
          expect_moved({shape, from, to, {1, 1, size}, Axis::tp});
          expect_moved({shape, from, to, {2, 1, size}, Axis::tp});  // other ranks beside them
        }
      }
    }
  }
}

// Dim 0 may be uneven, down to ranks that hold nothing.
TEST(Reshard, MovesUnevenRows) {
  for (const int size : {2, 3, 4}) {
    for (const Shape& shape : {Shape{5, 3}, Shape{7}, Shape{1, 6}, Shape{2}, Shape{9, 2}}) {
      expect_moved({shape, kReplicate, shard(0), {size, 1, 1}});
      expect_moved({shape, shard(0), kReplicate, {size, 1, 1}});
      expect_moved({shape, kPartial, shard(0), {size, 1, 1}});
      expect_moved({shape, kPartial, kReplicate, {size, 1, 1}});
    }
  }
}

}  // namespace
}  // namespace caravan
