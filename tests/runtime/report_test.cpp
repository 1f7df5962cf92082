// The memory report: its sums, the table as people see it, the message of the limit; the picture of
// a plan: well-formed, complete, without anything from outside.
#include "runtime/report.h"

#include <gtest/gtest.h>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/passes/plan_memory.h"
#include "runtime/passes/schedule.h"
#include "runtime/plan_svg.h"

namespace caravan {
namespace {

constexpr int64_t kMiB = 1 << 20;

// Two persistent entries; the first ends with 1 MiB of alignment.
PersistentLayout small_layout() {
  PersistentLayout layout;
  layout.entries = {{"w", MemoryCategory::weights, 0, 3 * kMiB},
                    {"optimizer.m.w", MemoryCategory::optimizer, 4 * kMiB, 6 * kMiB}};
  layout.by_name = {{"w", 0}, {"optimizer.m.w", 1}};
  layout.bytes = 10 * kMiB;
  return layout;
}

// Four steps; step 2 holds the most: a, b and the scratch, 9 MiB, of a plan of 10.
Program small_program() {
  Program program{.name = "update", .graph = {}, .mesh = {}, .steps = {}, .plan = {}};
  for (int i = 0; i < 4; ++i) {
    program.graph.add_node({.op = Add{}, .scope = "layers." + std::to_string(i)});
    program.steps.push_back({.node = static_cast<NodeId>(i)});
  }
  program.plan.blocks = {
      {"layers.0 add f32[4]", MemoryCategory::activations, 0, 4 * kMiB, 0, 2},
      {"layers.1 add f32[3]", MemoryCategory::gradients, 4 * kMiB, 3 * kMiB, 1, 3},
      {"layers.2 add workspace", MemoryCategory::workspace, 8 * kMiB, 2 * kMiB, 2, 2},
  };
  program.plan.transient_bytes = 10 * kMiB;
  program.plan.max_live_bytes = 9 * kMiB;
  return program;
}

Program smaller_program() {
  Program program = small_program();
  program.name = "evaluate";
  program.plan.blocks.resize(1);
  program.plan.transient_bytes = program.plan.max_live_bytes = 4 * kMiB;
  return program;
}

MemoryReport small_report(std::optional<MemoryLimit> limit) {
  const std::vector<Program> programs = {smaller_program(), small_program()};
  return memory_report(small_layout(), programs,
                       {.limit = std::move(limit), .host = {{"data prefetch", 5 * kMiB}}});
}

TEST(MemoryReport, RowsAddUpToTheArena) {
  const MemoryReport report = small_report({});
  int64_t sum = report.fragmentation_bytes;
  for (size_t i = 0; i < kNumMemoryCategories; ++i) {
    sum += report.persistent_bytes[i] + report.peak_bytes[i];
  }
  EXPECT_EQ(sum, report.arena_bytes);
  EXPECT_EQ(report.arena_bytes, 20 * kMiB);
  EXPECT_EQ(report.process_bytes(), 25 * kMiB);
  EXPECT_EQ(report.programs[report.largest_program].name, "update");
  EXPECT_EQ(report.programs[report.largest_program].peak_step, 2);
}

TEST(MemoryReport, PrintsTheTable) {
  EXPECT_EQ(to_string(small_report(MemoryLimit{40 * kMiB, "runtime.memory_limit"})),
            R"(memory of a rank, in MiB
                         persistent  at the peak        total
  weights                      4.00            -         4.00
  gradients                       -         3.00         3.00
  optimizer                    6.00            -         6.00
  activations                     -         4.00         4.00
  communication                   -            -            -
  workspace                       -         2.00         2.00
  fragmentation                   -         1.00         1.00
  arena                       10.00        10.00        20.00
  data prefetch                                          5.00
  process                                               25.00
  limit                                                 40.00  runtime.memory_limit
  free                                                  15.00

  transient region            steps     max live         plan  plan / max live
  evaluate                        4         4.00         4.00  1.0000
  update                          4         9.00        10.00  1.1111

largest values at the peak: step 2 of 'update', layers.2 add
        4.00  activations    0-2          layers.0 add f32[4]
        3.00  gradients      1-3          layers.1 add f32[3]
        2.00  workspace      2-2          layers.2 add workspace
)");
}

// The limit is the device's, where the arena lies; what the host holds is only shown.
TEST(MemoryReport, OfADevice) {
  const std::vector<Program> programs = {smaller_program(), small_program()};
  const MemoryReport report = memory_report(small_layout(), programs,
                                            {.limit = MemoryLimit{22 * kMiB, "auto"},
                                             .host = {{"data prefetch", 5 * kMiB}},
                                             .is_on_device = true,
                                             .held = {{"CUDA and others", 3 * kMiB}}});
  EXPECT_EQ(report.process_bytes(), 20 * kMiB);
  EXPECT_EQ(report.host_bytes(), 5 * kMiB);
  EXPECT_EQ(over_limit(report), "");
  const std::string table = to_string(report);
  EXPECT_NE(table.find(R"(
  arena                       10.00        10.00        20.00
  CUDA and others                                        3.00  of the device, not counted
  limit                                                 22.00  auto
  free                                                   2.00
  data prefetch                                          5.00
  host memory                                            5.00
)"),
            std::string::npos)
      << table;
}

TEST(MemoryReport, SaysWhatIsMissing) {
  const std::string table = to_string(small_report(MemoryLimit{24 * kMiB, "CARAVAN_MEMLIMIT"}));
  EXPECT_NE(table.find("  MISSING                                                1.00\n"),
            std::string::npos)
      << table;
}

std::string limit_message(const MemoryReport& report) {
  try {
    check_limit(report);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::config);
    return error.what();
  }
  return "";
}

TEST(MemoryReport, ChecksTheLimit) {
  const auto message = [](int64_t limit) {
    return limit_message(small_report(MemoryLimit{limit, "CARAVAN_MEMLIMIT"}));
  };
  EXPECT_EQ(message(25 * kMiB), "");
  EXPECT_EQ(message(25 * kMiB - 1024),
            "a rank needs 25.0 MiB, the memory limit is 25.0 MiB (CARAVAN_MEMLIMIT), over by 1.0 "
            "KiB; the largest part is optimizer, 6.0 MiB: use a smaller model (model.hidden_size, "
            "model.num_hidden_layers), a smaller train.micro_batch_size, or a higher limit");
  // 15 MiB stay with a batch of nothing.
  EXPECT_EQ(message(15 * kMiB).find("micro_batch_size"), std::string::npos);
  EXPECT_EQ(limit_message(small_report({})), "");
}

TEST(MemoryReport, AdvisesWhatHelps) {
  MemoryReport report = small_report(MemoryLimit{20 * kMiB, "CARAVAN_MEMLIMIT"});
  const auto expect = [&](std::string_view part) {
    const std::string message = limit_message(report);
    EXPECT_NE(message.find(part), std::string::npos) << part << " is not in: " << message;
    const bool names_zero = message.find("parallel.zero") != std::string::npos;
    EXPECT_EQ(names_zero, part.find("parallel.zero") != std::string::npos) << message;
  };
  expect("optimizer, 6.0 MiB: use a smaller model");
  report.dp = 8;
  expect("optimizer, 6.0 MiB: use parallel.zero=1, or");
  report.zero = 1;
  expect("optimizer, 6.0 MiB: use a smaller model");
  const auto grow = [&](MemoryCategory category, int64_t bytes) {
    report.peak_bytes[static_cast<size_t>(category)] = bytes;
  };
  grow(MemoryCategory::gradients, 7 * kMiB);
  expect("gradients, 7.0 MiB: use parallel.zero=2, or");
  report.zero = 2;
  expect("gradients, 7.0 MiB: use a smaller model");
  grow(MemoryCategory::activations, 8 * kMiB);
  expect("activations, 8.0 MiB: use a smaller train.micro_batch_size or data.sequence_len, or");
  grow(MemoryCategory::workspace, 9 * kMiB);
  expect("workspace, 9.0 MiB: use fewer runtime.threads");
  grow(MemoryCategory::communication, 10 * kMiB);
  expect("communication, 10.0 MiB: use a smaller parallel.bucket_bytes, or");
  report.limit->bytes = 15 * kMiB;  // a step without anything would be too much
  expect("optimizer, 6.0 MiB: use a smaller model");
}

// x (8,4) -> two layers, planned for real: blocks have speaking names and no more bytes than live.
TEST(MemoryReport, NamesBlocksAfterWhatMakesThem) {
  Graph graph;
  Builder b(graph);
  const Val x = b.input("x", {8, 4}, DType::f32);
  const Val w = b.parameter("w", {4, 4}, {});
  const auto scope = b.scope("layers", 3);
  b.output("y", b.add(b.linear(x, w), x));
  const Graph ordered = reorder(graph);
  const std::vector<Step> steps = schedule(ordered);
  const Graph* const graphs[] = {&ordered};
  const PersistentLayout layout = plan_persistent(graphs, {});
  const MemoryPlan plan = plan_memory(ordered, steps, {}, layout, {});
  std::vector<std::string> names;
  for (const Block& block : plan.blocks) names.push_back(block.name);
  EXPECT_EQ(names, (std::vector<std::string>{"x f32[8,4]", "layers.3 matmul f32[8,4]",
                                             "layers.3 add f32[8,4]"}));
  EXPECT_EQ(plan.transient_bytes, plan.max_live_bytes);
}

// Every element is closed, in order; text and attributes hold no markup.
void expect_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  size_t at = 0;
  while ((at = xml.find('<', at)) != std::string::npos) {
    const size_t end = xml.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = xml.substr(at + 1, end - at - 1);
    ASSERT_EQ(tag.find('<'), std::string::npos) << tag;
    ASSERT_EQ(std::ranges::count(tag, '"') % 2, 0) << tag;
    if (tag.front() == '/') {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ(open.back(), tag.substr(1));
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end;
  }
  EXPECT_TRUE(open.empty());
}

size_t count(const std::string& text, const std::string& part) {
  size_t number = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++number;
  return number;
}

TEST(PlanSvg, IsOneWellFormedFile) {
  Program program = small_program();
  program.plan.blocks[0].name = "a<b & c>d f32[4]";
  const std::string svg = plan_svg(program, small_layout(), "title <1>");
  expect_well_formed(svg);
  EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("title &lt;1&gt;"), std::string::npos);
  EXPECT_NE(svg.find("a&lt;b &amp; c&gt;d"), std::string::npos);
  EXPECT_EQ(count(svg, "href"), 0u);
  EXPECT_EQ(count(svg, "http"), 1u);  // the name space
  // A tooltip for every block, step and run of the persistent region.
  EXPECT_EQ(count(svg, "<title>"), 3u + 4u + 2u);
  EXPECT_EQ(svg, plan_svg(program, small_layout(), "title <1>"));
}

TEST(PlanSvg, TakesProgramsWithoutBlocks) {
  Program program = small_program();
  program.plan = {};
  expect_well_formed(plan_svg(program, {}, "nothing"));
  program.steps.clear();
  program.graph = {};
  expect_well_formed(plan_svg(program, {}, "nothing at all"));
}

}  // namespace
}  // namespace caravan
