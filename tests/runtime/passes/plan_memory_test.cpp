// Memory plans: nothing is overwritten while somebody needs it, however late communication runs;
// reuse changes no bit; the lower bound is one.
#include "runtime/passes/plan_memory.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "runtime/builder.h"
#include "runtime/passes/schedule.h"
#include "runtime/rng.h"
#include "runtime/storage.h"
#include "tests/support/random_graph.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

// When a communication step runs, between its place in the order and the first wait for it.
enum class Lateness { at_once, as_late_as_allowed, at_random };

// Walks a plan as an executor would, with patterns instead of numbers: what a step writes it fills
// with a pattern of its own, what it reads must still hold the pattern of who wrote it.
class PatternMachine {
 public:
  PatternMachine(const Program& program, const Arena& arena, int rank, Lateness lateness)
      : program_(program),
        arena_(arena),
        mesh_(program.mesh.with_rank(rank)),
        lateness_(lateness),
        stream_(12, RandomPurpose::test, 0),
        storage_(find_storage(program.graph)),
        version_(program.graph.values.size()) {
    for (size_t i = 0; i < version_.size(); ++i) {
      const Value& value = program.graph.values[i];
      version_[i] = static_cast<ValueId>(i);
      const bool given = is_persistent(value.kind) || value.kind == ValueKind::input;
      if (given) fill(static_cast<ValueId>(i));
    }
    for (const Node& node : program.graph.nodes) {  // a view shows what its input holds
      const bool is_view = written_roots(node, storage_).empty() && !node.outputs.empty();
      if (is_view) version_[index(node.outputs[0])] = version_[index(node.inputs[0])];
    }
  }

  void run() {
    for (size_t i = 0; i < program_.steps.size(); ++i) {
      const Step& step = program_.steps[i];
      const Node& node = program_.graph.nodes[index(step.node)];
      if (step.wait_for >= 0) finish_until(static_cast<size_t>(step.wait_for));
      if (lateness_ == Lateness::at_random && stream_.bits(i) % 2 == 0) finish_until(i);
      if (node.stream == Stream::communication && lateness_ != Lateness::at_once) {
        late_.push_back(i);
        continue;
      }
      execute(i);
    }
    finish_until(program_.steps.size());
    for (const auto& [name, id] : program_.graph.outputs) expect_intact(id, "output " + name);
    for (const auto& [target, source] : program_.graph.updates) expect_intact(source, "an update");
  }

 private:
  uint32_t pattern(ValueId version, const uint32_t* address) const {
    const auto place = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(address) >> 2);
    return (static_cast<uint32_t>(index(version)) + 1) * 0x9E3779B1u ^ place * 0x85EBCA77u;
  }

  std::span<uint32_t> words(ValueId id) const {
    const Value& value = program_.graph.value(id);
    auto* data = reinterpret_cast<uint32_t*>(arena_.at(program_.plan.locations[index(id)], mesh_));
    const Box box = local_box(value.global_shape, value.placement, mesh_);
    return {data, static_cast<size_t>(num_elements(box.extent))};
  }

  void fill(ValueId id) {
    for (uint32_t& word : words(id)) word = pattern(id, &word);
  }

  void expect_intact(ValueId id, const std::string& reader) const {
    for (const uint32_t& word : words(id)) {
      if (word == pattern(version_[index(id)], &word)) continue;
      ADD_FAILURE() << reader << ": %" << index(id) << " was overwritten";
      return;
    }
  }

  void execute(size_t step) {
    const Node& node = program_.graph.nodes[index(program_.steps[step].node)];
    const std::string reader = "step " + std::to_string(step) + " " + std::string(name(node.op));
    for (const ValueId id : node.inputs) expect_intact(id, reader);
    scribble(program_.plan.workspace_offsets[step], program_.plan.workspace_bytes[step]);
    for (const ValueId id : node.inputs) {  // in-place ops replace theirs below
      if (program_.plan.workspace_bytes[step] > 0) expect_intact(id, reader + " workspace");
    }
    if (!written_roots(node, storage_).empty()) {
      for (const ValueId id : node.outputs) fill(id);
    }
  }

  void scribble(int64_t offset, int64_t bytes) {
    if (offset < 0) return;
    auto* data = reinterpret_cast<uint32_t*>(arena_.transient() + offset);
    std::fill_n(data, bytes / 4, 0xDEADBEEFu);
  }

  void finish_until(size_t last) {
    while (!late_.empty() && late_.front() <= last) {
      execute(late_.front());
      late_.erase(late_.begin());
    }
  }

  const Program& program_;
  const Arena& arena_;
  Mesh mesh_;
  Lateness lateness_;
  RandomStream stream_;
  std::vector<Storage> storage_;
  std::vector<ValueId> version_;  // by value: whose pattern its bytes hold
  std::vector<size_t> late_;      // communication steps that have not run, in order
};

void expect_patterns_survive(const PlannedPrograms& planned, Backend& backend) {
  for (const Program& program : planned.programs) {
    verify_plan(program);
    const Arena arena(backend, planned.layout, program.plan.transient_bytes);
    for (const Lateness lateness :
         {Lateness::at_once, Lateness::as_late_as_allowed, Lateness::at_random}) {
      for (const int rank : {0, program.mesh.num_ranks() - 1}) {
        PatternMachine(program, arena, rank, lateness).run();
      }
    }
  }
}

TEST(PlanMemory, PatternsSurviveInRandomGraphs) {
  const auto backend = make_cpu_backend({.num_threads = 1, .overlap = false});
  for (uint64_t seed = 100; seed < 160; ++seed) {
    SCOPED_TRACE(seed);
    const RandomGraphOptions options{.seed = seed, .num_nodes = 80};
    const Graph graph = reorder(random_graph(options));
    expect_patterns_survive(plan_programs({{"random", graph}}, mesh_of(options), *backend, false),
                            *backend);
  }
}

TrainingRun training_run(std::array<int, kNumAxes> mesh, int zero, int accumulation) {
  TrainingRun run = tiny_run();
  run.mesh.sizes = mesh;
  run.optimizer.zero_stage = zero;
  run.accumulation_steps = accumulation;
  return run;
}

std::vector<TrainingRun> training_runs() {
  return {training_run({1, 1, 1}, 0, 1), training_run({2, 1, 1}, 0, 1),
          training_run({2, 1, 1}, 1, 2), training_run({3, 1, 1}, 2, 2),
          training_run({2, 1, 2}, 1, 2)};
}

TEST(PlanMemory, PatternsSurviveInTraining) {
  const auto backend = make_cpu_backend({.num_threads = 2, .overlap = false});
  for (const TrainingRun& run : training_runs()) {
    SCOPED_TRACE(to_string(run.mesh));
    expect_patterns_survive(plan_programs(training_graphs(run), run.mesh, *backend, false),
                            *backend);
  }
}

// The machine itself finds damage: two values at one place.
TEST(PlanMemory, PatternMachineFindsOverlaps) {
  const auto backend = make_cpu_backend({.num_threads = 1, .overlap = false});
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {64}, DType::f32);
  const Val first = b.add(x, x), second = b.swiglu(x, x);
  b.output("sum", b.add(first, second));
  PlannedPrograms planned = plan_programs({{"p", graph}}, {}, *backend, false);
  Program& program = planned.programs[0];
  program.plan.locations[index(second)] = program.plan.locations[index(first)];
  const Arena arena(*backend, planned.layout, program.plan.transient_bytes);
  testing::TestPartResultArray failures;
  {
    testing::ScopedFakeTestPartResultReporter reporter(&failures);
    PatternMachine(program, arena, 0, Lateness::at_once).run();
  }
  EXPECT_EQ(failures.size(), 1);
}

TEST(PlanMemory, ReuseChangesNoBit) {
  for (TrainingRun run : training_runs()) {
    SCOPED_TRACE(to_string(run.mesh));
    const std::vector<TokenBatch> batches = {random_batch(run, 1), random_batch(run, 2)};
    run.runner = {.keep_all = false, .poison_freed = true};
    const TrainingResult planned = train(run, batches);
    run.runner = {.keep_all = true, .poison_freed = false, .overlap = false};
    const TrainingResult kept = train(run, batches);
    EXPECT_EQ(planned.losses, kept.losses);
    EXPECT_EQ(planned.grad_norms, kept.grad_norms);
    EXPECT_EQ(planned.persistent, kept.persistent);
  }
}

int64_t bytes_live_at(const MemoryPlan& plan, int step) {
  int64_t bytes = 0;
  for (const Block& block : plan.blocks) {
    if (block.first_step <= step && step <= block.last_step) bytes += block.bytes;
  }
  return bytes;
}

void expect_tight(const Program& program, double limit) {
  const MemoryPlan& plan = program.plan;
  int64_t most = 0;
  for (size_t step = 0; step < program.steps.size(); ++step) {
    most = std::max(most, bytes_live_at(plan, static_cast<int>(step)));
  }
  EXPECT_EQ(plan.max_live_bytes, most);
  EXPECT_GE(plan.transient_bytes, most);
  EXPECT_LE(static_cast<double>(plan.transient_bytes), limit * static_cast<double>(most));
}

// So large that the search must find what is tight: of small programs it takes what comes first.
TEST(PlanMemory, MaxLiveIsTheLowerBound) {
  const auto backend = make_cpu_backend({});
  for (TrainingRun run : training_runs()) {
    run.model.hidden_size *= 32;
    run.model.intermediate_size *= 32;
    run.sequence_len *= 32;
    const PlannedPrograms planned = plan_programs(training_graphs(run), run.mesh, *backend, false);
    for (const Program& program : planned.programs) expect_tight(program, 1.02);
  }
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const RandomGraphOptions options{.seed = seed};
    const Graph graph = reorder(random_graph(options));
    const PlannedPrograms planned =
        plan_programs({{"random", graph}}, mesh_of(options), *backend, false);
    expect_tight(planned.programs[0], 1.3);
  }
}

TEST(PlanMemory, KeepAllUsesNoByteTwice) {
  const auto backend = make_cpu_backend({});
  const TrainingRun run = tiny_run();
  const PlannedPrograms planned = plan_programs(training_graphs(run), run.mesh, *backend, true);
  std::vector<Block> blocks = planned.programs[0].plan.blocks;
  std::ranges::sort(blocks, {}, &Block::offset);
  for (size_t i = 1; i < blocks.size(); ++i) {
    EXPECT_GE(blocks[i].offset, blocks[i - 1].offset + blocks[i - 1].bytes);
  }
}

TEST(PlanMemory, EverythingIsAligned) {
  const auto backend = make_cpu_backend({});
  const TrainingRun run = training_run({3, 1, 1}, 0, 2);
  const PlannedPrograms planned = plan_programs(training_graphs(run), run.mesh, *backend, false);
  for (const PersistentEntry& entry : planned.layout.entries) EXPECT_EQ(entry.offset % 64, 0);
  for (const Program& program : planned.programs) {
    for (const Location& location : program.plan.locations) EXPECT_EQ(location.offset % 64, 0);
    for (const int64_t offset : program.plan.workspace_offsets) {
      EXPECT_TRUE(offset == -1 || offset % 64 == 0);
    }
  }
}

// A walk over the layout is a checkpoint: declaration order, no overlap, everything of all graphs.
TEST(PlanPersistent, IsInOrderOfDeclaration) {
  const auto backend = make_cpu_backend({});
  const TrainingRun run = training_run({2, 1, 1}, 1, 1);
  const std::vector<NamedGraph> graphs = training_graphs(run);
  const PlannedPrograms planned = plan_programs(graphs, run.mesh, *backend, false);
  std::vector<std::string> declared, placed;
  for (const Value& value : graphs[0].graph.values) {
    if (is_persistent(value.kind)) declared.push_back(value.name);
  }
  int64_t end = 0;
  for (const PersistentEntry& entry : planned.layout.entries) {
    placed.push_back(entry.name);
    EXPECT_GE(entry.offset, end);
    end = entry.offset + entry.bytes;
    EXPECT_EQ(&planned.layout.entries[planned.layout.by_name.at(entry.name)], &entry);
  }
  EXPECT_EQ(placed, declared);
  EXPECT_GE(planned.layout.bytes, end);
}

// Programs of one run must agree on where a persistent value lies.
TEST(PlanPersistent, ProgramsShareIt) {
  const auto backend = make_cpu_backend({});
  const TrainingRun run = training_run({2, 1, 1}, 0, 2);
  const PlannedPrograms planned = plan_programs(training_graphs(run), run.mesh, *backend, false);
  const Program& update = planned.programs[0];
  const Program& accumulate = planned.programs[1];
  size_t num_shared = 0;
  for (size_t i = 0; i < accumulate.graph.values.size(); ++i) {
    const Value& value = accumulate.graph.values[i];
    if (!is_persistent(value.kind)) continue;
    const ValueId other = update.graph.find(value.name);
    ASSERT_NE(other, ValueId::none) << value.name;
    EXPECT_EQ(accumulate.plan.locations[i].offset, update.plan.locations[index(other)].offset);
    EXPECT_EQ(accumulate.plan.locations[i].region, Region::persistent);
    ++num_shared;
  }
  EXPECT_GT(num_shared, 40u);
}

// Contiguous groups of random graphs: one after another, but for the gap of alignment.
TEST(PlanMemory, GroupsAreContiguous) {
  const auto backend = make_cpu_backend({});
  size_t num_groups = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const RandomGraphOptions options{.seed = seed};
    const Graph graph = reorder(random_graph(options));
    const PlannedPrograms planned =
        plan_programs({{"random", graph}}, mesh_of(options), *backend, false);
    const std::vector<Location>& locations = planned.programs[0].plan.locations;
    for (const auto& group : graph.contiguous) {
      ++num_groups;
      for (size_t i = 1; i < group.size(); ++i) {
        const int64_t distance =
            locations[index(group[i])].offset - locations[index(group[i - 1])].offset;
        const int64_t bytes = graph.value(group[i - 1]).bytes();
        EXPECT_EQ(distance, (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment);
      }
    }
  }
  EXPECT_GT(num_groups, 10u);
}

}  // namespace
}  // namespace caravan
