#include "runtime/report.h"

#include <algorithm>
#include <numeric>

#include "runtime/error.h"
#include "runtime/passes/plan_memory.h"

namespace caravan {
namespace {

MemoryReport::ProgramUse use_of(const Program& program) {
  const std::vector<int64_t> live = live_bytes(program.plan, program.steps.size());
  return {.name = program.name,
          .num_steps = program.steps.size(),
          .max_live_bytes = program.plan.max_live_bytes,
          .plan_bytes = program.plan.transient_bytes,
          .peak_step = static_cast<int>(std::ranges::max_element(live) - live.begin())};
}

std::vector<Block> blocks_at(const MemoryPlan& plan, int step) {
  std::vector<Block> live;
  for (const Block& block : plan.blocks) {
    if (block.first_step <= step && step <= block.last_step) live.push_back(block);
  }
  std::ranges::stable_sort(live, std::greater<>(), &Block::bytes);
  return live;
}

std::string node_at(const Program& program, int step) {
  if (program.steps.empty()) return "";
  return label(program.graph.nodes[index(program.steps[static_cast<size_t>(step)].node)]);
}

int64_t sum(const std::array<int64_t, kNumMemoryCategories>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

// One unit for the whole table, so that columns can be compared by eye.
struct TableUnit {
  const char* name;
  double bytes;
  int digits;

  std::string format(int64_t value) const {
    if (value == 0) return "-";
    return absl::StrFormat("%.*f", digits, static_cast<double>(value) / bytes);
  }
};

TableUnit unit_for(int64_t largest) {
  constexpr int64_t kMiB = 1 << 20, kGiB = 1 << 30;
  if (largest >= 16 * kGiB) return {"GiB", kGiB, 2};
  if (largest >= kMiB) return {"MiB", kMiB, 2};
  return {"KiB", 1 << 10, 2};
}

class Table {
 public:
  explicit Table(const MemoryReport& report)
      : report_(report), unit_(unit_for(report.arena_bytes)) {}

  std::string text() {
    add_categories();
    add_process();
    add_programs();
    add_largest();
    return std::move(text_);
  }

 private:
  void row(const std::string& name, const std::string& persistent, const std::string& peak,
           const std::string& total, const std::string& note = "") {
    std::string line =
        absl::StrFormat("  %-20s %12s %12s %12s  %s", name, persistent, peak, total, note);
    line.erase(line.find_last_not_of(' ') + 1);
    text_ += line + "\n";
  }

  void add_categories() {
    text_ += absl::StrFormat("memory of a rank, in %s\n", unit_.name);
    row("", "persistent", "at the peak", "total");
    for (size_t i = 0; i < kNumMemoryCategories; ++i) {
      const int64_t persistent = report_.persistent_bytes[i], peak = report_.peak_bytes[i];
      row(std::string(name(static_cast<MemoryCategory>(i))), unit_.format(persistent),
          unit_.format(peak), unit_.format(persistent + peak));
    }
    const int64_t lost = report_.fragmentation_bytes;
    row("fragmentation", "-", unit_.format(lost), unit_.format(lost));
    const int64_t persistent = sum(report_.persistent_bytes);
    row("arena", unit_.format(persistent), unit_.format(report_.arena_bytes - persistent),
        unit_.format(report_.arena_bytes));
  }

  void add_process() {
    if (report_.is_on_device) {
      for (const HostMemory& one : report_.held) {
        row(one.name, "", "", unit_.format(one.bytes), "of the device, not counted");
      }
      add_limit();
      return add_host("host memory", report_.host_bytes());
    }
    add_host("process", report_.process_bytes());
    add_limit();
  }

  void add_host(const char* sum, int64_t bytes) {
    for (const HostMemory& host : report_.host) row(host.name, "", "", unit_.format(host.bytes));
    if (!report_.host.empty()) row(sum, "", "", unit_.format(bytes));
  }

  void add_limit() {
    if (!report_.limit) return;
    const MemoryLimit& limit = *report_.limit;
    const int64_t free = limit.bytes - report_.process_bytes();
    row("limit", "", "", unit_.format(limit.bytes), limit.source);
    if (free >= 0) {
      row("free", "", "", unit_.format(free));
    } else {
      row("MISSING", "", "", unit_.format(-free));
    }
  }

  void add_programs() {
    text_ += absl::StrFormat("\n  %-20s %12s %12s %12s  %s\n", "transient region", "steps",
                             "max live", "plan", "plan / max live");
    for (const MemoryReport::ProgramUse& use : report_.programs) {
      text_ += absl::StrFormat("  %-20s %12d %12s %12s  %.4f\n", use.name, use.num_steps,
                               unit_.format(use.max_live_bytes), unit_.format(use.plan_bytes),
                               use.ratio());
    }
  }

  void add_largest() {
    if (report_.largest.empty()) return;
    const MemoryReport::ProgramUse& use = report_.programs[report_.largest_program];
    text_ += absl::StrFormat("\nlargest values at the peak: step %d of '%s', %s\n", use.peak_step,
                             use.name, report_.peak_node);
    for (const Block& block : report_.largest) {
      text_ += absl::StrFormat(
          "  %10s  %-13s  %-11s  %s\n", unit_.format(block.bytes), name(block.category),
          absl::StrFormat("%d-%d", block.first_step, block.last_step), block.name);
    }
  }

  const MemoryReport& report_;
  TableUnit unit_;
  std::string text_;
};

// Bytes by MemoryCategory: where what stays exceeds the limit by itself, without what a step needs.
std::array<int64_t, kNumMemoryCategories> bytes_to_save(const MemoryReport& report,
                                                        bool batch_matters) {
  auto bytes = report.persistent_bytes;
  for (size_t i = 0; batch_matters && i < bytes.size(); ++i) bytes[i] += report.peak_bytes[i];
  return bytes;
}

// The key that makes a category smaller; "" when only a smaller model does.
std::string key_for(MemoryCategory category, const MemoryReport& report) {
  const bool has_peers = report.dp > 1;
  switch (category) {
    case MemoryCategory::optimizer:
      return has_peers && report.zero < 1 ? "parallel.zero=1" : "";
    case MemoryCategory::gradients:
      return has_peers && report.zero < 2 ? "parallel.zero=2" : "";
    case MemoryCategory::activations:
      return "a smaller train.micro_batch_size or data.sequence_len";
    case MemoryCategory::communication:
      return "a smaller parallel.bucket_bytes";
    case MemoryCategory::workspace:
      return report.is_on_device ? "a smaller train.micro_batch_size"
                                 : "fewer runtime.threads or a smaller train.micro_batch_size";
    case MemoryCategory::weights:
      return has_peers && report.zero < 3 ? "parallel.zero=3" : "";
  }
  throw internal_error("unknown memory category");
}

// "the largest part is weights, 1.5 GiB: use ..."
std::string advice(const MemoryReport& report) {
  const int64_t fixed = report.process_bytes() - report.programs[report.largest_program].plan_bytes;
  const bool batch_matters = fixed < report.limit->bytes;
  const auto bytes = bytes_to_save(report, batch_matters);
  const auto most = std::ranges::max_element(bytes);
  const auto category = static_cast<MemoryCategory>(most - bytes.begin());
  std::string fix = key_for(category, report);
  if (fix.empty()) {
    fix = "a smaller model (model.hidden_size, model.num_hidden_layers)";
    if (batch_matters) fix += ", a smaller train.micro_batch_size";
  }
  return absl::StrFormat("the largest part is %s, %s: use %s, or a higher limit", name(category),
                         format_bytes(*most), fix);
}

}  // namespace

double MemoryReport::ProgramUse::ratio() const {
  if (max_live_bytes == 0) return 1;
  return static_cast<double>(plan_bytes) / static_cast<double>(max_live_bytes);
}

int64_t MemoryReport::host_bytes() const {
  int64_t bytes = 0;
  for (const HostMemory& one : host) bytes += one.bytes;
  return bytes;
}

int64_t MemoryReport::process_bytes() const {
  return arena_bytes + (is_on_device ? 0 : host_bytes());
}

MemoryReport memory_report(const PersistentLayout& layout, std::span<const Program> programs,
                           const ReportOptions& options) {
  check(!programs.empty(), "a report needs a program");
  MemoryReport report{.host = options.host,
                      .is_on_device = options.is_on_device,
                      .held = options.held,
                      .limit = options.limit,
                      .zero = options.zero,
                      .dp = options.dp};
  for (size_t i = 0; i < layout.entries.size(); ++i) {
    const bool is_last = i + 1 == layout.entries.size();
    const int64_t end = is_last ? layout.bytes : layout.entries[i + 1].offset;
    const PersistentEntry& entry = layout.entries[i];
    report.persistent_bytes[static_cast<size_t>(entry.category)] += end - entry.offset;
  }
  for (const Program& program : programs) report.programs.push_back(use_of(program));
  const auto largest =
      std::ranges::max_element(report.programs, {}, &MemoryReport::ProgramUse::plan_bytes);
  report.largest_program = static_cast<size_t>(largest - report.programs.begin());
  const Program& program = programs[report.largest_program];
  report.peak_node = node_at(program, largest->peak_step);
  report.largest = blocks_at(program.plan, largest->peak_step);
  for (const Block& block : report.largest) {
    report.peak_bytes[static_cast<size_t>(block.category)] += block.bytes;
  }
  report.largest.resize(std::min(report.largest.size(), options.num_largest));
  report.fragmentation_bytes = largest->plan_bytes - largest->max_live_bytes;
  report.arena_bytes = layout.bytes + largest->plan_bytes;
  return report;
}

std::string to_string(const MemoryReport& report) { return Table(report).text(); }

std::string over_limit(const MemoryReport& report) {
  if (!report.limit || report.process_bytes() <= report.limit->bytes) return "";
  const int64_t needed = report.process_bytes(), limit = report.limit->bytes;
  return absl::StrFormat("a rank needs %s, the memory limit is %s (%s), over by %s; %s",
                         format_bytes(needed), format_bytes(limit), report.limit->source,
                         format_bytes(needed - limit), advice(report));
}

void check_limit(const MemoryReport& report) {
  const std::string problem = over_limit(report);
  if (!problem.empty()) throw config_error(problem);
}

}  // namespace caravan
