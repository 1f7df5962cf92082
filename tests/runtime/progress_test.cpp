// What a rank publishes about itself while it runs, as another one sees it.
#include "runtime/progress.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <thread>

#include "runtime/builder.h"
#include "tests/support/program_runner.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {
namespace {

constexpr Mesh kMesh{{2, 1, 1}, 0};

// add, all_reduce beside compute, swiglu that needs it.
Graph reducing_graph() {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {16}, DType::f32);
  const Val sum = b.one(AllReduce{Axis::dp}, {b.add(x, x)});
  b.output("y", b.swiglu(sum, sum));
  graph.nodes[1].stream = Stream::communication;
  return graph;
}

// True as soon as `is_so`; false after ten seconds.
bool becomes_true(const std::function<bool()>& is_so) {
  for (int i = 0; i < 10'000; ++i) {
    if (is_so()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

int all_reduce_step(const Program& program) {
  for (size_t i = 0; i < program.steps.size(); ++i) {
    if (is_collective(program.graph.nodes[index(program.steps[i].node)].op)) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

// Rank 1 goes on only when it has seen that rank 0 waits for it in the all_reduce.
void run_and_watch(Communicator& world, bool overlap, std::array<Progress, 2>& progress) {
  const int rank = world.rank();
  const auto backend = make_cpu_backend({.num_threads = 1, .overlap = overlap});
  const PlannedPrograms planned = plan_programs({{"p", reducing_graph()}}, kMesh, *backend, false);
  const Program& program = planned.programs[0];
  const int step = all_reduce_step(program);
  Arena arena(*backend, planned.layout, program.plan.transient_bytes);
  const auto group = world.split(0, rank);
  ExecutorOptions options{.on_node = {}, .progress = &progress[static_cast<size_t>(rank)]};
  options.program_index = 7;
  if (rank == 1) {
    options.on_node = [&](const Node& node, double) {
      if (!std::holds_alternative<Add>(node.op)) return;
      EXPECT_TRUE(becomes_true([&] { return progress[0].read().waits_for == step; }));
      EXPECT_EQ(progress[0].read().program, 7);
      EXPECT_EQ(progress[1].read().waits_for, kWaitsForNothing);
      EXPECT_EQ(progress[1].read().op, 0);
    };
  }
  Executor executor(program, *backend, arena, kMesh.with_rank(rank), {group.get()}, options);
  executor.run();
  const Position after = progress[static_cast<size_t>(rank)].read();
  EXPECT_EQ(after.waits_for, kWaitsForNothing);
  EXPECT_EQ(after.op, static_cast<int>(program.steps.size()) - 1);
  EXPECT_GE(after.moves, program.steps.size());
}

TEST(Progress, ShowsTheCollectiveThatARankWaitsFor) {
  for (const bool overlap : {true, false}) {
    std::array<Progress, 2> progress;
    run_ranks(2, [&](Communicator& world) { run_and_watch(world, overlap, progress); });
  }
}

TEST(Progress, ControlPlaneCallsAreWaits) {
  std::array<Progress, 2> progress;
  run_ranks(2, [&](Communicator& world) {
    const int rank = world.rank();
    const auto watched =
        make_watched_communicator(world.split(0, rank), progress[static_cast<size_t>(rank)]);
    if (rank == 1) {
      EXPECT_TRUE(
          becomes_true([&] { return progress[0].read().waits_for == kWaitsForControlPlane; }));
    }
    EXPECT_EQ(gather_strings(*watched, std::to_string(rank)), (std::vector<std::string>{"0", "1"}));
    EXPECT_EQ(progress[static_cast<size_t>(rank)].read().waits_for, kWaitsForNothing);
    EXPECT_GT(progress[static_cast<size_t>(rank)].read().moves, 0u);
  });
}

TEST(Progress, EveryMoveCounts) {
  Progress progress;
  uint64_t before = progress.read().moves;
  const auto moves = [&](const std::function<void()>& what) {
    what();
    const uint64_t now = progress.read().moves;
    EXPECT_GT(now, before);
    before = now;
  };
  moves([&] { progress.enter(Phase::saving); });
  moves([&] { progress.begin_op(3); });
  moves([&] { progress.moved(); });
  moves([&] { WaitGuard waits(progress, 5); });
  const Position at = progress.read();
  EXPECT_EQ(at.phase, Phase::saving);
  EXPECT_EQ(at.op, 3);
  EXPECT_EQ(at.waits_for, kWaitsForNothing);
}

}  // namespace
}  // namespace caravan
