// Gradient buckets: their size, order and place in memory; and that they change no bit.
#include "parallel/bucket.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/parallelize.h"
#include "runtime/error.h"
#include "runtime/passes/schedule.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

constexpr int64_t kHuge = int64_t{1} << 40;

TrainingRun data_parallel_run(int64_t bucket_bytes, int zero, int accumulation) {
  TrainingRun run = tiny_run();
  run.mesh.sizes = {2, 1, 1};
  run.bucket_bytes = bucket_bytes;
  run.optimizer.zero_stage = zero;
  run.accumulation_steps = accumulation;
  return run;
}

bool is_gradient_reduction(const Graph& graph, const Node& node) {
  const bool reduces =
      std::holds_alternative<AllReduce>(node.op) || std::holds_alternative<ReduceScatter>(node.op);
  return reduces && !graph.value(node.inputs[0]).shape.empty();
}

std::vector<const Node*> buckets_of(const Graph& graph) {
  std::vector<const Node*> buckets;
  for (const Node& node : graph.nodes) {
    if (is_gradient_reduction(graph, node)) buckets.push_back(&node);
  }
  return buckets;
}

int64_t bytes_of(const Graph& graph, std::span<const ValueId> ids) {
  int64_t bytes = 0;
  for (const ValueId id : ids) bytes += graph.value(id).bytes();
  return bytes;
}

TEST(Bucket, EndsWithTheMemberThatFillsIt) {
  constexpr int64_t kBytes = 9000;
  const Graph graph = training_graphs(data_parallel_run(kBytes, 0, 1))[0].graph;
  const std::vector<const Node*> buckets = buckets_of(graph);
  ASSERT_GT(buckets.size(), 3u);
  size_t num_small = 0;
  for (const Node* bucket : buckets) {
    const std::span<const ValueId> members = bucket->inputs;
    EXPECT_LT(bytes_of(graph, members.first(members.size() - 1)), kBytes);
    if (bytes_of(graph, members) < kBytes) ++num_small;
  }
  EXPECT_LE(num_small, 1u);  // the rest at the end
}

// With ZeRO the update reads slices of the sums; the sums share calls all the same.
TEST(Bucket, ZeroStagesHaveBucketsToo) {
  for (const int zero : {1, 2}) {
    const Graph graph = training_graphs(data_parallel_run(kHuge, zero, 2))[0].graph;
    EXPECT_EQ(buckets_of(graph).size(), 1u) << "ZeRO " << zero;
  }
}

TEST(Bucket, OneByteMeansOneGradientEach) {
  const Graph graph = training_graphs(data_parallel_run(1, 0, 1))[0].graph;
  for (const Node* bucket : buckets_of(graph)) EXPECT_EQ(bucket->inputs.size(), 1u);
  EXPECT_TRUE(graph.contiguous.empty());
}

TEST(Bucket, HugeMeansOneCall) {
  const Graph graph = training_graphs(data_parallel_run(kHuge, 0, 1))[0].graph;
  ASSERT_EQ(buckets_of(graph).size(), 1u);
  const auto is_parameter = [](const Value& v) { return v.kind == ValueKind::parameter; };
  EXPECT_EQ(std::ssize(buckets_of(graph)[0]->inputs),
            std::ranges::count_if(graph.values, is_parameter));
}

// Members stand in the order in which backward makes them.
TEST(Bucket, KeepsTheOrderOfBackward) {
  const Graph graph = training_graphs(data_parallel_run(9000, 0, 1))[0].graph;
  std::vector<size_t> made(graph.values.size());
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ValueId id : graph.nodes[i].outputs) made[index(id)] = i;
  }
  size_t last = 0;
  for (const Node* bucket : buckets_of(graph)) {
    for (const ValueId id : bucket->inputs) {
      EXPECT_GE(made[index(id)], last);
      last = made[index(id)];
    }
  }
}

// A bucket starts when its last member is there, not at the end of backward.
TEST(Bucket, StartsAsSoonAsItIsFull) {
  const Graph graph = training_graphs(data_parallel_run(9000, 0, 1))[0].graph;
  for (size_t i = 1; i < graph.nodes.size(); ++i) {
    if (!is_gradient_reduction(graph, graph.nodes[i])) continue;
    const Node& before = graph.nodes[i - 1];
    const std::vector<ValueId>& members = graph.nodes[i].inputs;
    const bool makes_member = std::ranges::any_of(before.outputs, [&](ValueId id) {
      return std::ranges::find(members, id) != members.end();
    });
    EXPECT_TRUE(makes_member || is_collective(before.op)) << name(before.op);
  }
}

// In memory the members follow one another, but for the gap of alignment.
void expect_contiguous(const Program& program) {
  for (const auto& group : program.graph.contiguous) {
    for (size_t i = 1; i < group.size(); ++i) {
      const Location& before = program.plan.locations[index(group[i - 1])];
      const Location& here = program.plan.locations[index(group[i])];
      const int64_t bytes = program.graph.value(group[i - 1]).bytes();
      EXPECT_EQ(here.region, before.region);
      EXPECT_GE(here.offset, before.offset + bytes);
      EXPECT_LT(here.offset, before.offset + bytes + 64);
    }
  }
}

TEST(Bucket, MembersAreNeighboursInMemory) {
  const auto backend = make_cpu_backend({});
  for (const int accumulation : {1, 2}) {  // transient, then persistent
    const TrainingRun run = data_parallel_run(9000, 0, accumulation);
    const PlannedPrograms planned = plan_programs(training_graphs(run), run.mesh, *backend, false);
    const Program& update = planned.programs[0];
    ASSERT_FALSE(update.graph.contiguous.empty());
    const ValueId member = update.graph.contiguous[0][0];
    EXPECT_EQ(update.plan.locations[index(member)].region,
              accumulation == 1 ? Region::transient : Region::persistent);
    expect_contiguous(update);
  }
}

TEST(Bucket, ScalarsAreNotGradients) {
  const Graph graph = training_graphs(data_parallel_run(kHuge, 0, 1))[0].graph;
  int num_scalar_reductions = 0;
  for (const Node& node : graph.nodes) {
    if (!std::holds_alternative<AllReduce>(node.op)) continue;
    if (graph.value(node.inputs[0]).shape.empty()) ++num_scalar_reductions;
  }
  EXPECT_GE(num_scalar_reductions, 1);
}

TrainingResult result_with(int64_t bucket_bytes, bool overlap, int zero, int accumulation) {
  TrainingRun run = data_parallel_run(bucket_bytes, zero, accumulation);
  run.runner.overlap = overlap;
  return train(run, {random_batch(run, 1)});
}

// Neither buckets nor overlap change what is computed, to the last bit.
class NoBitTest : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(NoBitTest, DependsOnBucketsOrOverlap) {
  const auto [zero, accumulation] = GetParam();
  const TrainingResult expected = result_with(1, false, zero, accumulation);
  for (const int64_t bucket_bytes : {int64_t{1}, int64_t{9000}, kHuge}) {
    const TrainingResult actual = result_with(bucket_bytes, true, zero, accumulation);
    EXPECT_EQ(actual.losses, expected.losses);
    EXPECT_EQ(actual.grad_norms, expected.grad_norms);
    EXPECT_EQ(actual.persistent, expected.persistent);
  }
}

INSTANTIATE_TEST_SUITE_P(All, NoBitTest,
                         testing::Values(std::pair(0, 1), std::pair(1, 2), std::pair(2, 2)));

TEST(Bucket, LeavesOtherGraphsAlone) {
  TrainingRun run = tiny_run();
  const Graph before = reorder(parallelize(logical_update_graph(run), run.mesh));
  EXPECT_EQ(dump(bucket_gradients(before, 9000)), dump(before));
}

}  // namespace
}  // namespace caravan
