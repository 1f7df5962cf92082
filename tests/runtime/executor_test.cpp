// The executor beside its programs: freed bytes, callbacks, addresses, errors with their place.
#include "runtime/executor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/passes/schedule.h"
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

}  // namespace
}  // namespace caravan
