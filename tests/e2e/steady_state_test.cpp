// A step that has run in asks nobody for memory: no allocation and no system call for memory by
// Caravan's own code, and no page fault. What libraries allocate is listed, and only some may. Log
// lines, evaluations and checkpoints lie outside of what is looked at. The observer is in
// steady_state/.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/e2e/caravan_process.h"

namespace caravan {
namespace {

constexpr int kSteps = 10;  // that are looked at together

// How the names of libraries begin that may allocate in a step. To forbid one, take it out.
constexpr const char* kMayAllocate[] = {
    // Open MPI: its modules, of which libnbc plans each collective anew, and its libraries
    "mca_",
    "libmpi.so",
    "libopen-pal.so",
    "libopen-rte.so",
};

bool may_allocate(const std::string& asker) {
  return std::ranges::any_of(kMayAllocate,
                             [&](const char* name) { return asker.starts_with(name); });
}

// What every rank asked for.
std::vector<nlohmann::json> observe(int num_ranks, bool wastes, const std::string& options) {
  const Workbench bench;
  std::string command =
      bench.train_command("run", "train.max_steps=100 log.logging_steps=1000 " + options);
  command.replace(0, std::string("train").size(),
                  bench.folder() + " 40 " + std::to_string(kSteps) + (wastes ? " 1" : " 0"));
  // Threads that spin for work would starve on busy processors.
  const ProcessResult result =
      run_program("steady_state_program " + command, num_ranks, "OMP_WAIT_POLICY=passive");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  std::vector<nlohmann::json> uses;
  for (int rank = 0; rank < std::max(1, num_ranks); ++rank) {
    std::ifstream file(bench.path("rank-" + std::to_string(rank) + ".json"));
    uses.push_back(nlohmann::json::parse(file));
    std::cout << "rank " << rank << ", " << kSteps << " steps: " << uses.back() << '\n';
  }
  return uses;
}

void expect_steady(const nlohmann::json& use) {
  EXPECT_FALSE(use["allocations"].contains("own")) << use["own_places"];
  for (const char* kind : {"allocations", "memory_calls"}) {
    for (const auto& [asker, count] : use[kind].items()) {
      EXPECT_TRUE(may_allocate(asker)) << kind << " of " << asker << ": " << count;
    }
  }
  // What happens in every step happens in all pieces. A library that makes room for one more
  // message than ever before is in one of them.
  EXPECT_EQ(std::ranges::min(use["page_faults"].get<std::vector<int64_t>>()), 0);
}

TEST(SteadyState, OneProcess) {
  for (const auto& use : observe(0, false, "runtime.threads=2")) expect_steady(use);
}

TEST(SteadyState, TwoProcesses) {
  for (const auto& use : observe(2, false, "parallel.zero=1 runtime.overlap=true")) {
    expect_steady(use);
  }
}

// Weights that are gathered in every step.
TEST(SteadyState, ShardedWeights) {
  for (const auto& use : observe(2, false, "parallel.zero=3 runtime.overlap=true")) {
    expect_steady(use);
  }
}

// Passes that repeat, rows that travel, and what routers did in every line of metrics.jsonl.
TEST(SteadyState, Experts) {
  const std::string experts =
      "model.num_local_experts=4 model.num_experts_per_tok=2 moe.slots=0.6 parallel.ep=2";
  for (const auto& use : observe(2, false, experts)) expect_steady(use);
}

TEST(SteadyState, WhatAsksForMemoryIsSeen) {
  const nlohmann::json use = observe(0, true, "")[0];
  EXPECT_EQ(use["allocations"].value("own", 0), kSteps);
  EXPECT_EQ(use["memory_calls"].value("own mmap", 0), kSteps);
  EXPECT_EQ(use["memory_calls"].value("own munmap", 0), kSteps);
  EXPECT_GE(std::ranges::min(use["page_faults"].get<std::vector<int64_t>>()), kSteps);
  EXPECT_FALSE(use["own_places"].empty());
}

}  // namespace
}  // namespace caravan
