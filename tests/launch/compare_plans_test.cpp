// Ranks that planned differently hear which op it was, all of them.
#include "launch/compare_plans.h"

#include <gtest/gtest.h>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "tests/support/program_runner.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {
namespace {

using ProgramsOfRank = std::function<std::vector<NamedGraph>(int rank)>;

// What each of three ranks throws, "" for nothing.
std::vector<std::string> compare(const ProgramsOfRank& programs_of) {
  std::vector<std::string> messages(3);
  run_ranks(3, [&](Communicator& world) {
    const auto backend = make_cpu_backend({});
    const PlannedPrograms planned = plan_programs(programs_of(world.rank()), {}, *backend, false);
    try {
      compare_plans(world, planned.programs);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::internal);
      messages[static_cast<size_t>(world.rank())] = error.what();
    }
  });
  EXPECT_EQ(messages[1], messages[0]);
  EXPECT_EQ(messages[2], messages[0]);
  return messages;
}

Graph mlp(int64_t width, int num_more_ops = 0) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {128, 384}, DType::f32);
  const Val sum = b.add(x, x);
  const auto scope = b.scope("layers", 3);
  Val y = b.matmul(sum, b.input("w", {384, width}, DType::f32), {});
  for (int i = 0; i < num_more_ops; ++i) y = b.add(y, y);
  b.output("y", y);
  return graph;
}

void expect_parts(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
  }
}

TEST(ComparePlans, TheSameIsFine) {
  const auto messages = compare([](int) -> std::vector<NamedGraph> {
    return {{"accumulate", mlp(64)}, {"update", mlp(64, 2)}};
  });
  EXPECT_EQ(messages[0], "");
}

TEST(ComparePlans, NamesTheFirstOpThatDiffers) {
  const auto messages = compare([](int rank) -> std::vector<NamedGraph> {
    return {{"accumulate", mlp(8)}, {"update", mlp(rank == 2 ? 32 : 64)}};
  });
  expect_parts(messages[0],
               {"rank 2 planned op 1 of program 'update' as matmul",
                "(128, 384) x (384, 32) -> (128, 32) [layers.3]", "rank 0 as matmul",
                "(384, 64) -> (128, 64)", "the same binary with the same configuration?"});
}

TEST(ComparePlans, APlanThatEndsEarlier) {
  const auto messages = compare([](int rank) -> std::vector<NamedGraph> {
    return {{"update", mlp(64, rank == 1 ? 0 : 1)}};
  });
  expect_parts(messages[0], {"rank 1 planned op 2", "no more ops", "rank 0 as add"});
}

TEST(ComparePlans, OtherPrograms) {
  const auto messages = compare([](int rank) {
    std::vector<NamedGraph> programs = {{"update", mlp(64)}};
    if (rank != 1) programs.push_back({"evaluate", mlp(64)});
    return programs;
  });
  expect_parts(messages[0], {"rank 1 planned the programs update, rank 0 update, evaluate"});
}

TEST(ComparePlans, TheSameOpsAtOtherPlaces) {
  const auto messages = compare([](int rank) -> std::vector<NamedGraph> {
    Graph graph = mlp(64);
    if (rank == 2) graph.outputs[0].first = "z";
    return {{"update", graph}};
  });
  expect_parts(messages[0], {"rank 2 planned the same ops of program 'update'", "other values"});
}

}  // namespace
}  // namespace caravan
