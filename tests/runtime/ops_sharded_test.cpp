// Every op of the table on 2 and 4 virtual ranks, its inputs lying in every way that its rule of
// placement accepts and in many that it does not: the gathered outputs equal those of one rank.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/parallelize.h"
#include "runtime/builder.h"
#include "runtime/ops/rules.h"
#include "runtime/passes/schedule.h"
#include "runtime/rng.h"
#include "tests/runtime/ops_table.h"

namespace caravan {
namespace {

using Placements = std::vector<AxisPlacement>;
constexpr size_t kMostOthers = 24;  // of combinations that need moves

std::string output_name(size_t i) { return "out" + std::to_string(i); }

Graph op_graph(const OpEntry& c, const Placements& placements) {
  Graph graph;
  Builder b(graph);
  std::vector<Val> inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const TensorSpec spec = spec_of(c.inputs[i]);
    const Placement placement = Placement{}.with(Axis::dp, placements[i]);
    inputs.push_back(b.input("in" + std::to_string(i), spec.shape, spec.dtype, placement));
  }
  const std::vector<Val> outputs = b.emit(c.op, inputs);
  for (size_t i = 0; i < outputs.size(); ++i) b.output(output_name(i), outputs[i]);
  return graph;
}

HostTensors run_op(const OpEntry& c, const Placements& placements, int num_ranks) {
  const Mesh mesh{{num_ranks, 1, 1}};
  const Graph graph = reorder(parallelize(op_graph(c, placements), mesh));
  verify(graph, "parallelize");
  HostTensors inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    inputs["in" + std::to_string(i)] = make_tensor(c.inputs[i], i);
  }
  return run_on_ranks({{"op", graph}}, mesh, {}, [&](ProgramRunner& runner) {
    runner.run("op", inputs);
    for (const auto& [name, id] : graph.outputs) runner.record_output(name, "op", name);
  });
}

Placements choices(const OpInput& input) {
  Placements all = {kReplicate};
  for (size_t dim = 0; dim < input.shape.size(); ++dim) {
    if (dim != 1 || input.splits_columns) all.push_back(shard(static_cast<int>(dim)));
  }
  const bool is_float = spec_of(input).dtype == DType::f32;
  if (is_float && input.may_be_partial) all.push_back(kPartial);
  return all;
}

// All combinations of the inputs' choices.
std::vector<Placements> combinations(const OpEntry& c) {
  std::vector<Placements> all = {{}};
  for (const OpInput& input : c.inputs) {
    std::vector<Placements> longer;
    for (const Placements& head : all) {
      for (const AxisPlacement choice : choices(input)) {
        longer.push_back(head);
        longer.back().push_back(choice);
      }
    }
    all = std::move(longer);
  }
  return all;
}

// Nothing becomes partial: an accumulator that is declared so takes partial values only.
bool is_reachable(const Placements& given, const Placements& needed) {
  for (size_t i = 0; i < given.size(); ++i) {
    if (needed[i] == kPartial && given[i] != kPartial) return false;
  }
  return true;
}

struct Selection {
  std::vector<Placements> accepted;  // as they are
  std::vector<Placements> others;    // after moves: evenly picked from all of them
};

Selection select(const OpEntry& c) {
  Selection selection;
  std::vector<Placements> others;
  for (const Placements& placements : combinations(c)) {
    const Placements needed = shard(c.op, placements).inputs;
    if (!is_reachable(placements, needed)) continue;
    (needed == placements ? selection.accepted : others).push_back(placements);
  }
  const size_t stride = others.size() / kMostOthers + 1;
  for (size_t i = 0; i < others.size(); i += stride) selection.others.push_back(others[i]);
  return selection;
}

std::string describe(const Placements& placements) {
  std::string text;
  for (const AxisPlacement placement : placements) text += to_string(placement) + " ";
  return text;
}

std::vector<OpEntry> placed_ops() {
  std::vector<OpEntry> cases = ops_table();
  std::erase_if(cases, [](const OpEntry& c) { return is_placed_already(c.op); });
  return cases;
}

class ShardedOpTest : public testing::TestWithParam<OpEntry> {};

TEST_P(ShardedOpTest, EqualsOneRank) {
  const OpEntry& c = GetParam();
  // What they sort is each rank's own; tests/parallel/expand_experts_test.cpp has their results.
  if (name(c.op).starts_with("experts")) return;
  const HostTensors expected = run_op(c, Placements(c.inputs.size(), kReplicate), 1);
  const Selection selection = select(c);
  ASSERT_FALSE(selection.accepted.empty());
  for (const auto* group : {&selection.accepted, &selection.others}) {
    for (const Placements& placements : *group) {
      for (const int num_ranks : {2, 4}) {
        SCOPED_TRACE(describe(placements) + "on " + std::to_string(num_ranks));
        const HostTensors actual = run_op(c, placements, num_ranks);
        ASSERT_EQ(actual.size(), expected.size());
        for (const auto& [name, tensor] : expected) {
          EXPECT_LT(relative_difference(actual.at(name), tensor), 2e-5) << name;
        }
      }
    }
  }
}

TEST_P(ShardedOpTest, RuleGivesWhatItSays) {
  const OpEntry& c = GetParam();
  for (const Placements& placements : combinations(c)) {
    const ShardRule rule = shard(c.op, placements);
    ASSERT_EQ(rule.inputs.size(), c.inputs.size());
    ASSERT_EQ(rule.outputs.size(), c.outputs.size());
    // What the rule asks for, it accepts: moving the inputs once is enough.
    EXPECT_EQ(shard(c.op, rule.inputs).inputs, rule.inputs) << describe(placements);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ShardedOpTest, testing::ValuesIn(placed_ops()),
                         [](const auto& info) { return info.param.label; });

// The cases that the parallelisms of design.md live on must be among those that need no move.
TEST(ShardRules, AcceptWhatParallelismsNeed) {
  const AxisPlacement rows = shard(0), columns = shard(1);
  const Op linear = MatMul{.transpose_b = true};
  const auto outputs = [](const Op& op, const Placements& inputs) {
    const ShardRule rule = shard(op, inputs);
    EXPECT_EQ(rule.inputs, inputs) << name(op);
    return rule.outputs;
  };
  EXPECT_EQ(outputs(linear, {rows, kReplicate}), Placements{rows});      // data parallel
  EXPECT_EQ(outputs(linear, {kReplicate, rows}), Placements{columns});   // column parallel
  EXPECT_EQ(outputs(linear, {columns, columns}), Placements{kPartial});  // row parallel
  EXPECT_EQ(outputs(linear, {kPartial, kReplicate}), Placements{kPartial});
  EXPECT_EQ(outputs(Add{}, {kPartial, kPartial}), Placements{kPartial});  // sums of gradients
  EXPECT_EQ(outputs(SwiGlu{}, {columns, columns}), Placements{columns});  // inside the MLP
  EXPECT_EQ(outputs(Attention{4, 4}, {columns, columns, columns, kReplicate}),
            (Placements{columns, columns}));  // by head
  EXPECT_EQ(outputs(Attention{4, 4, 2}, {columns, kReplicate, kReplicate, kReplicate}),
            (Placements{columns, columns}));  // fewer key heads than ranks
  EXPECT_EQ(outputs(Embedding{}, {rows, kReplicate}), Placements{kPartial});  // by vocabulary
  EXPECT_EQ(outputs(EmbeddingGrad{}, {rows, kReplicate, kReplicate}), Placements{rows});
  EXPECT_EQ(outputs(LinearCrossEntropyGrad{}, {kReplicate, rows, kReplicate, kReplicate}),
            (Placements{kReplicate, kReplicate, kPartial, rows}));
  EXPECT_EQ(outputs(Accumulate{}, {kPartial, kPartial, kReplicate}), Placements{kPartial});
}

// Sequence parallelism: tokens are gathered, weights stay.
TEST(ShardRules, GatherTokensRatherThanWeights) {
  const AxisPlacement rows = shard(0), columns = shard(1);
  const auto moved = [](const MatMul& op, const Placements& inputs) {
    return shard(Op{op}, inputs).inputs;
  };
  const MatMul linear{.transpose_b = true}, dx{}, dw{.transpose_a = true};
  EXPECT_EQ(moved(linear, {rows, rows}), (Placements{kReplicate, rows}));        // up
  EXPECT_EQ(moved(dx, {rows, columns}), (Placements{kReplicate, columns}));      // of down
  EXPECT_EQ(moved(dw, {columns, rows}), (Placements{columns, kReplicate}));      // of up
  EXPECT_EQ(moved(dw, {rows, columns}), (Placements{kReplicate, columns}));      // of down
  EXPECT_EQ(moved(linear, {rows, kReplicate}), (Placements{rows, kReplicate}));  // router
}

}  // namespace
}  // namespace caravan
