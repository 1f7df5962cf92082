// The executor beside its programs: freed bytes, callbacks, addresses, errors with their place.
#include "runtime/executor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/passes/schedule.h"
#include "tests/support/forwarding_backend.h"
#include "tests/support/silent_communicator.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

// A backend of its own, and one program of one rank.
struct Fixture {
  explicit Fixture(const Graph& graph)
      : backend(make_cpu_backend({.num_threads = 1, .overlap = false})),
        planned(plan_programs({{"p", graph}}, {}, *backend, false)),
        arena(*backend, planned.layout, planned.programs[0].plan.transient_bytes) {}

  Executor executor(ExecutorOptions options) {
    return Executor(planned.programs[0], *backend, arena, {}, {}, std::move(options));
  }

  std::unique_ptr<Backend> backend;
  PlannedPrograms planned;
  Arena arena;
};

Graph two_step_graph(Val* between) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {16}, DType::f32);
  *between = b.add(x, x);
  b.output("y", b.swiglu(*between, *between));
  return graph;
}

void write(const TensorView& view, float value) {
  std::fill_n(view.as<float>(), view.size(), value);
}

TEST(Executor, FreedBytesBecomeNaN) {
  Val between;
  Graph graph = two_step_graph(&between);
  Builder b(graph);
  b.output("z", b.fill(1.0f));  // a step after the last use of x and of the sum
  Fixture fixture(graph);
  for (const bool poisons : {true, false}) {
    Executor executor = fixture.executor({poisons, {}});
    write(executor.input("x"), 2.0f);
    executor.run();
    const float freed = executor.view(between).as<float>()[15];  // z may lie in front
    EXPECT_EQ(std::isnan(freed), poisons);
    EXPECT_EQ(executor.output("z"), 1.0f);
    const float swiglu = 16.0f / (1.0f + std::exp(-4.0f));
    EXPECT_NEAR(*executor.view(graph.output("y")).as<float>(), swiglu, 1e-5);
  }
}

TEST(Executor, CallsBackAfterEachNode) {
  Val between;
  Fixture fixture(two_step_graph(&between));
  std::vector<std::string> ops;
  Executor executor = fixture.executor({false, [&](const Node& node, double seconds) {
                                          ops.emplace_back(name(node.op));
                                          EXPECT_GE(seconds, 0);
                                        }});
  executor.run();
  EXPECT_EQ(ops, (std::vector<std::string>{"add", "swiglu"}));
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Executor, NamesWhatIsMissing) {
  Val between;
  Fixture fixture(two_step_graph(&between));
  Executor executor = fixture.executor({});
  EXPECT_EQ(message_of([&] { executor.input("w"); }), "program 'p' has no input 'w'");
  EXPECT_EQ(message_of([&] { executor.output("w"); }), "program 'p' has no output 'w'");
  EXPECT_EQ(message_of([&] { fixture.arena.persistent("w"); }),
            "the arena has no persistent value 'w'");
}

TEST(Executor, ErrorsSayWhereInTheProgram) {
  Graph graph;
  Builder b(graph);
  const auto scope = b.scope("layers", 2);
  const Val table = b.parameter("table", {4, 2}, {});
  b.output("y", b.embedding(table, b.input("ids", {3}, DType::i32)));
  Fixture fixture(graph);
  Executor executor = fixture.executor({});
  executor.input("ids").as<int32_t>()[1] = 4;  // there are 4 rows
  const std::string message = message_of([&] { executor.run(); });
  for (const char* word : {"embedding", "'p'", "layers.2"}) {
    EXPECT_NE(message.find(word), std::string::npos) << message;
  }
}

// Addresses are fixed: two executors of a program see the same values.
TEST(Executor, ValuesLieWhereThePlanSays) {
  Val between;
  const Graph graph = two_step_graph(&between);
  Fixture fixture(graph);
  Executor one = fixture.executor({}), other = fixture.executor({});
  write(one.input("x"), 1.5f);
  EXPECT_EQ(other.input("x").as<float>()[15], 1.5f);
  EXPECT_EQ(one.view(between).data,
            fixture.arena.at(fixture.planned.programs[0].plan.locations[index(between)], {}));
}

// Records what runs on a CPU: a recording is a list of ops, in the order of the calls.
class RecordingBackend final : public ForwardingBackend {
 public:
  RecordingBackend() : ForwardingBackend({.num_threads = 1, .overlap = false}) {}
  std::string description() const override { return "recording"; }
  void run(const Op& op, const KernelArgs& args, Stream stream) override {
    if (recorded_ != nullptr) {
      recorded_->push_back({&op, args, stream});
      num_communications_ += stream == Stream::communication;
      return;
    }
    ++num_run;
    ForwardingBackend::run(op, args, stream);
  }
  void wait_for_communication(int64_t count) override {
    events.push_back(absl::StrFormat("wait %d", count));
  }
  int64_t communication_count() const override {
    return ForwardingBackend::communication_count() + num_communications_;
  }
  void synchronize() override {
    ++num_synchronized;
    ForwardingBackend::synchronize();
  }
  bool records() const override { return true; }
  std::unique_ptr<Recording> record(const std::function<void()>& issue) override {
    ++num_recorded;
    auto list = std::make_unique<List>(*this);
    recorded_ = &list->calls;
    issue();
    recorded_ = nullptr;
    return list;
  }

  int num_run = 0, num_recorded = 0, num_launched = 0, num_synchronized = 0;
  std::vector<std::string> events;  // waits and launches

 private:
  struct Call {
    const Op* op;
    KernelArgs args;
    Stream stream;
  };
  struct List final : Recording {
    explicit List(RecordingBackend& of) : backend(of) {}
    void launch() override {
      ++backend.num_launched;
      backend.events.push_back("launch");
      for (const Call& call : calls) {
        backend.ForwardingBackend::run(*call.op, call.args, call.stream);
      }
    }
    RecordingBackend& backend;
    std::vector<Call> calls;
  };

  std::vector<Call>* recorded_ = nullptr;
  int64_t num_communications_ = 0;
};

// One program of one rank on it. `communicator`: of Axis::dp.
struct RecordedFixture {
  explicit RecordedFixture(const Graph& graph, const Mesh& mesh = {})
      : mesh(mesh),
        planned(plan_programs({{"p", graph}}, mesh, backend, false)),
        arena(backend, planned.layout, planned.programs[0].plan.transient_bytes) {}

  Executor executor(ExecutorOptions options = {false, {}}, Communicator* communicator = nullptr) {
    return Executor(planned.programs[0], backend, arena, mesh, {communicator}, std::move(options));
  }

  RecordingBackend backend;
  Mesh mesh;
  PlannedPrograms planned;
  Arena arena;
};

TEST(RecordedExecutor, RecordsTheSecondRunAndLaunchesFromThenOn) {
  Val between;
  const Graph graph = two_step_graph(&between);
  RecordedFixture fixture(graph);
  Executor executor = fixture.executor();
  for (int run = 1; run <= 4; ++run) {
    const auto x = static_cast<float>(run);
    write(executor.input("x"), x);
    executor.run();
    EXPECT_NEAR(*executor.view(graph.output("y")).as<float>(), 4 * x * x / (1 + std::exp(-2 * x)),
                1e-4);
    EXPECT_EQ(fixture.backend.num_run, 2);
    EXPECT_EQ(fixture.backend.num_recorded, run > 1);
    EXPECT_EQ(fixture.backend.num_launched, run - 1);
  }
}

TEST(RecordedExecutor, WhoeverLooksAtNodesSeesThemRun) {
  Val between;
  RecordedFixture fixture(two_step_graph(&between));
  ExecutorOptions looks_before{false, [](const Node&, double) {}};
  ExecutorOptions looks_after{.poison_freed = false,
                              .after_node = [](const Node&, std::span<const TensorView>) {}};
  for (const ExecutorOptions& options : {ExecutorOptions{true, {}}, looks_before, looks_after}) {
    Executor executor = fixture.executor(options);
    for (int run = 0; run < 3; ++run) executor.run();
  }
  EXPECT_EQ(fixture.backend.num_recorded, 0);
  EXPECT_EQ(fixture.backend.num_run, 3 * 3 * 2);
}

TEST(RecordedExecutor, StopsBeforeTheUpdate) {
  const Graph graph = training_graphs(tiny_run())[0].graph;
  RecordedFixture fixture(graph);
  std::vector<int> launched;
  Executor executor = fixture.executor({.poison_freed = false, .before_update = [&] {
                                          launched.push_back(fixture.backend.num_launched);
                                        }});
  for (int run = 0; run < 3; ++run) {
    for (const char* tokens : {"input_ids", "targets", "positions", "document_start"}) {
      const TensorView& input = executor.input(tokens);
      std::fill_n(input.as<int32_t>(), input.size(), 0);
    }
    executor.run();
  }
  EXPECT_EQ(fixture.backend.num_recorded, 2);
  EXPECT_EQ(launched, (std::vector<int>{0, 1, 3}));
}

// Adds 1 to a sum as often as an input says.
Graph counting_graph() {
  Graph graph;
  Builder b(graph);
  const Val times = b.input("times", {}, DType::f32);
  const Val zero = b.fill(0.0f), one = b.fill(1.0f);
  const ValueId sum = graph.add_value({.name = "sum"});
  graph.repeats.push_back({times});
  graph.add_node({.op = Accumulate{}, .inputs = {zero, one, one}, .outputs = {sum}, .repeat = 0});
  b.output("sum", sum);
  return graph;
}

TEST(RecordedExecutor, RepeatsAsOftenAsTheHostReads) {
  RecordedFixture fixture(counting_graph());
  Executor executor = fixture.executor();
  for (const float times : {0.0f, 3.0f, 0.0f, 2.0f, 5.0f}) {
    executor.set_input("times", times);
    executor.run();
    EXPECT_EQ(executor.output("sum"), times);
  }
  // What repeats runs step by step in its first round, in the second run, and is recorded then.
  EXPECT_EQ(fixture.backend.num_recorded, 2);
}

// A group of two whose other rank has nothing to add.
class LonelyCommunicator final : public SilentCommunicator {
 public:
  explicit LonelyCommunicator(bool is_asynchronous)
      : SilentCommunicator(2), is_asynchronous_(is_asynchronous) {}
  bool is_asynchronous() const override { return is_asynchronous_; }
  void all_reduce(void*, int64_t, DType) override { ++num_sums; }

  int num_sums = 0;

 private:
  bool is_asynchronous_;
};

// x + x is summed over the ranks beside another node.
Graph summing_graph() {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {16}, DType::f32);
  const Val twice = b.add(x, x);
  const ValueId sum = graph.add_value(graph.value(twice));
  graph.add_node({.op = AllReduce{Axis::dp},
                  .inputs = {twice},
                  .outputs = {sum},
                  .stream = Stream::communication});
  const Val other = b.swiglu(x, x);
  b.output("y", b.add(sum, other));
  return graph;
}

TEST(RecordedExecutor, CommunicationIsRecordedWhereItNeedsNoHost) {
  for (const bool is_asynchronous : {true, false}) {
    const Mesh mesh{{2, 1, 1}};
    RecordedFixture fixture(summing_graph(), mesh);
    LonelyCommunicator communicator(is_asynchronous);
    Executor executor = fixture.executor({false, {}}, &communicator);
    const ValueId y = executor.program().graph.output("y");
    for (int run = 1; run <= 3; ++run) {
      write(executor.input("x"), 1.0f);
      fixture.backend.events.clear();
      executor.run();
      EXPECT_NEAR(*executor.view(y).as<float>(), 2 + 1 / (1 + std::exp(-1.0f)), 1e-5);
      EXPECT_EQ(communicator.num_sums, run);
    }
    const std::vector<std::string>& events = fixture.backend.events;
    EXPECT_EQ(std::ranges::count(events, "launch"), is_asynchronous ? 1 : 2);
    EXPECT_EQ(fixture.backend.num_recorded, is_asynchronous ? 1 : 2);
    EXPECT_TRUE(events.front().starts_with("wait "));  // for all that was issued before
    EXPECT_TRUE(std::ranges::find(events, "launch")[-1].starts_with("wait "));
  }
}

TEST(RecordedExecutor, ProgressNamesTheProgram) {
  const Mesh mesh{{2, 1, 1}};
  RecordedFixture fixture(summing_graph(), mesh);
  LonelyCommunicator communicator(true);
  Progress progress;
  Executor executor = fixture.executor(
      {.poison_freed = false, .progress = &progress, .program_index = 5}, &communicator);
  executor.run();
  EXPECT_GE(progress.read().op, 0);
  executor.run();
  EXPECT_EQ(progress.read().op, kRecordedOps);
  EXPECT_EQ(progress.read().program, 5);
  EXPECT_EQ(progress.read().waits_for, kWaitsForNothing);
}

}  // namespace
}  // namespace caravan
