// The hash of a program, and the verifier of plans.
#include "runtime/program.h"

#include <gtest/gtest.h>

#include <set>

#include "runtime/error.h"
#include "tests/support/training_run.h"

namespace caravan {
namespace {

Program tiny_program() {
  const TrainingRun run = tiny_run();
  const auto backend = make_cpu_backend({});
  return plan_programs(training_graphs(run), run.mesh, *backend, false).programs[0];
}

TEST(Hash, IsTheSameForTheSameProgram) { EXPECT_EQ(hash(tiny_program()), hash(tiny_program())); }

TEST(Hash, ChangesWithEverythingThatRanksMustAgreeOn) {
  const Program original = tiny_program();
  std::set<uint64_t> hashes = {hash(original)};
  const auto expect_new = [&](const char* what, const auto& change) {
    Program program = original;
    change(program);
    EXPECT_TRUE(hashes.insert(hash(program)).second) << what;
  };
  expect_new("name", [](Program& p) { p.name = "other"; });
  expect_new("mesh", [](Program& p) { p.mesh.sizes = {2, 1, 1}; });
  expect_new("order", [](Program& p) { std::swap(p.graph.nodes[3], p.graph.nodes[4]); });
  expect_new("stream", [](Program& p) { p.graph.nodes[3].stream = Stream::communication; });
  expect_new("wait", [](Program& p) { p.steps[5].wait_for = 2; });
  expect_new("offset", [](Program& p) { p.plan.locations.back().offset += 64; });
  expect_new("region", [](Program& p) {
    Region& region = p.plan.locations.back().region;
    region = region == Region::transient ? Region::persistent : Region::transient;
  });
  expect_new("workspace", [](Program& p) { p.plan.workspace_offsets[0] += 64; });
  expect_new("attribute", [](Program& p) {
    for (Node& node : p.graph.nodes) {
      if (auto* update = std::get_if<AdamW>(&node.op)) update->beta1 = 0.5f;
    }
  });
}

std::string message_of(const Program& program) {
  try {
    verify_plan(program);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

Program blocks_program(std::vector<Block> blocks, int64_t transient_bytes) {
  Program program{"test", {}, {}, {}, {}};
  program.plan.blocks = std::move(blocks);
  program.plan.transient_bytes = transient_bytes;
  return program;
}

Block block(const char* name, int64_t offset, int64_t bytes, int first_step, int last_step) {
  return {.name = name,
          .offset = offset,
          .bytes = bytes,
          .first_step = first_step,
          .last_step = last_step};
}

TEST(VerifyPlan, FindsSharedBytes) {
  const std::string message =
      message_of(blocks_program({block("a", 0, 128, 0, 3), block("b", 64, 64, 3, 5)}, 256));
  EXPECT_NE(message.find("'a' and 'b' share bytes"), std::string::npos) << message;
}

TEST(VerifyPlan, FindsBlocksOutside) {
  for (const int64_t offset : {int64_t{-64}, int64_t{192}}) {
    const std::string message = message_of(blocks_program({block("a", offset, 128, 0, 1)}, 256));
    EXPECT_NE(message.find("outside"), std::string::npos) << message;
  }
}

TEST(VerifyPlan, AcceptsNeighboursInSpaceAndTime) {
  EXPECT_NO_THROW(verify_plan(blocks_program(
      {block("a", 0, 64, 0, 3), block("beside", 64, 64, 0, 3), block("after", 0, 64, 4, 5)}, 128)));
}

}  // namespace
}  // namespace caravan
