// metrics.jsonl: whole lines, valid JSON, also after a crash.
#include "launch/metrics.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/builder.h"
#include "tests/launch/messages.h"

namespace caravan {
namespace {

StepMetrics one_step() {
  StepMetrics m;
  m.step = 3;
  m.max_steps = 10;
  m.time_seconds = 1700000000.5;
  m.loss = 2.5;
  m.grad_norm = 0.75;
  m.learning_rate = 1e-3;
  m.tokens = 12288;
  m.step_ms = 250;
  m.tokens_per_second = 16384;
  m.memory_bytes = int64_t{3} << 29;
  m.data_ms = 0.5;
  return m;
}

std::string line_of(const StepMetrics& metrics) {
  std::string line = "what was there before";
  metrics_line(metrics, line);
  return line;
}

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    lines.push_back(nlohmann::json::parse(line, nullptr, false));
  }
  return lines;
}

TEST(Metrics, ALineHasTheAgreedKeys) {
  EXPECT_EQ(line_of(one_step()),
            R"({"step":3,"time":1700000000.5,"loss":2.5,"grad_norm":0.75,"lr":0.001,)"
            R"("tokens":12288,"step_ms":250.0,"tok_s":16384.0,"mem_gib":1.5,"data_ms":0.5})");
}

TEST(Metrics, RoutersHaveANumberForEachGroupOfLayers) {
  Graph graph;
  Builder b(graph);
  b.output("router.1.load", b.input("a", {2}, DType::f32));
  b.output("router.3.load", b.input("b", {2}, DType::f32));
  RouterMetrics routers(graph, 4);
  routers.sums()[0].load = {3, 1};
  routers.sums()[0].further = 2;
  routers.sums()[1].load = {0, 8};
  routers.sums()[1].dropped = 2;
  routers.update();
  StepMetrics m = one_step();
  m.routers = &routers;
  const auto line = nlohmann::json::parse(line_of(m));
  EXPECT_EQ(line["moe_first_layer"].dump(), "[1,3]");
  EXPECT_EQ(line["moe_load_max_mean"].dump(), "[1.5,2]");
  EXPECT_EQ(line["moe_passes"].dump(), "[1.5,1]");
  EXPECT_EQ(line["moe_dropped"].dump(), "[0,2]");
  EXPECT_EQ(line["moe_dropped_share"].dump(), "[0,0.25]");
  EXPECT_EQ(line["moe_dead"].dump(), "[0,1]");
}

TEST(Metrics, WhatIsNotFiniteIsNull) {
  StepMetrics m = one_step();
  m.loss = std::nan("");
  m.grad_norm = INFINITY;
  const auto line = nlohmann::json::parse(line_of(m));
  EXPECT_TRUE(line["loss"].is_null());
  EXPECT_TRUE(line["grad_norm"].is_null());
}

TEST(Metrics, NumbersReadBackAsTheSame) {
  StepMetrics m = one_step();
  for (const double value : {0.1, 1e-300, -1.7976931348623157e308, 5e-324, 123456789.123456789}) {
    m.loss = value;
    EXPECT_EQ(nlohmann::json::parse(line_of(m))["loss"].get<double>(), value);
  }
}

TEST(Metrics, SpikesAndSkippedStepsAreMarked) {
  StepMetrics m = one_step();
  m.loss_z = 4.99;
  auto line = nlohmann::json::parse(line_of(m));
  EXPECT_EQ(line["loss_z"], 4.99);
  EXPECT_FALSE(line.contains("grad_norm_z"));
  EXPECT_FALSE(line.contains("spike"));
  EXPECT_FALSE(line.contains("skipped"));
  m.grad_norm_z = 5;  // either of them
  m.skipped_steps = 2;
  line = nlohmann::json::parse(line_of(m));
  EXPECT_EQ(line["grad_norm_z"], 5);
  EXPECT_EQ(line["spike"], true);
  EXPECT_EQ(line["skipped"], 2);
  m.loss_z = -9;  // a fall is none
  m.grad_norm_z.reset();
  EXPECT_FALSE(nlohmann::json::parse(line_of(m)).contains("spike"));
}

TEST(Metrics, AppendsAcrossRuns) {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  { MetricsFile(path).step(one_step()); }
  {
    MetricsFile file(path);
    file.resume(2);
    file.evaluation(3, 2.25);
  }
  const auto lines = lines_of(path);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["step"], 3);
  EXPECT_EQ(lines[1].dump(), R"({"event":"resume","step":2})");
  EXPECT_EQ(lines[2]["loss"], 2.25);
}

TEST(Metrics, StartsANewLineAfterATornOne) {
  const TemporaryFolder folder;
  const std::string path = folder / "metrics.jsonl";
  std::ofstream(path) << R"({"step":1,"lo)";
  { MetricsFile(path).resume(0); }
  const auto lines = lines_of(path);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(lines[0].is_discarded());
  EXPECT_EQ(lines[1]["event"], "resume");
}

TEST(Metrics, SaysWhereItCannotWrite) {
  EXPECT_EQ(config_message([] { MetricsFile file("/nowhere/metrics.jsonl"); }),
            "/nowhere/metrics.jsonl: No such file or directory; make output_dir writable, or give "
            "another one");
  MetricsFile full("/dev/full");
  EXPECT_EQ(full.error(), "");
  full.resume(1);
  EXPECT_EQ(full.error(), "/dev/full: No space left on device; this line is lost");
}

}  // namespace
}  // namespace caravan
