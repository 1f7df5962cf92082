#include "launch/plan_command.h"
#include "launch/model_source.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/data_feed.h"
#include "launch/log.h"
#include "launch/machine.h"
#include "launch/nearest_name.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
#include "launch/session.h"
#include "parallel/parallelize.h"
#include "runtime/builder.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"
#include "runtime/plan_svg.h"
#include "runtime/report.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

constexpr std::array kTrainingPasses = {"build",     "autodiff",    "merge_loss", "recompute",
                                        "optimizer", "parallelize", "prefetch",   "expand_experts",
                                        "fuse_add",  "bucket",      "schedule"};
constexpr std::array kEvaluationPasses = {"build",    "parallelize", "prefetch", "expand_experts",
                                          "fuse_add", "bucket",      "schedule"};
constexpr std::array kPrograms = {"update", "accumulate", "evaluate"};

// 1234567 -> "1.23 M"; `units` are "", thousands, millions and so on.
std::string in_units(double value, std::string_view units) {
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < units.size()) value /= 1000, ++unit;
  if (unit == 0) return absl::StrFormat("%.0f", value);
  return absl::StrFormat("%.3g %c", value, units[unit]);
}

constexpr std::string_view kCounts = " kMBT";     // of things
constexpr std::string_view kFlops = " kMGTPEZY";  // SI

// Bytes that are moved may be more than an int64_t holds.
std::string traffic(double bytes) {
  if (bytes < 0x1p62) return format_bytes(static_cast<int64_t>(bytes));
  return absl::StrFormat("%.3g EiB", bytes / 0x1p60);
}

void expect_known(const char* what, const std::string& given,
                  const std::vector<std::string>& known) {
  if (std::ranges::find(known, given) != known.end()) return;
  const auto nearest = nearest_name(given, known);
  std::string fix = nearest ? absl::StrFormat("did you mean %s?", *nearest) : "there are";
  for (size_t i = 0; !nearest && i < known.size(); ++i) fix += (i ? ", " : " ") + known[i];
  throw config_error(absl::StrFormat("no %s '%s'; %s", what, printable(given), fix));
}

// Everything that is shown of a plan.
struct PlanView {
  Config config;
  int num_ranks = 1;
  DeviceKind device = DeviceKind::cpu;
  RunPlan run;
  MemoryReport memory;
};

// How often a program runs in a training step.
int64_t runs_per_step(const PlanView& view, const Program& program) {
  if (program.name == "update") return 1;
  return program.name == "accumulate" ? view.run.accumulation_steps - 1 : 0;
}

Cost cost_of(const Program& program) {
  Cost total;
  for (const Node& node : program.graph.nodes) {
    const Cost one =
        cost(node.op, specs_of(program.graph, node.inputs), specs_of(program.graph, node.outputs));
    total.flops += one.flops;
    total.bytes += one.bytes;
  }
  return total;
}

double flops_per_step(const PlanView& view) {
  double flops = 0;
  for (const Program& program : view.run.programs) {
    flops += cost_of(program).flops * static_cast<double>(runs_per_step(view, program));
  }
  return flops;
}

int64_t tokens_per_step(const Config& config) {
  return config.train.global_batch_size * config.data.sequence_len;
}

std::string plan_hash(const RunPlan& run) {
  std::string all;
  for (const Program& program : run.programs) absl::StrAppendFormat(&all, "%x ", hash(program));
  return absl::StrFormat("%016x", stable_hash(all));
}

std::string describe_model(const PlanView& view) {
  return absl::StrFormat("%s, %s parameters", name(view.config.model.family),
                         in_units(static_cast<double>(num_parameters(view.run)), kCounts));
}

// "dp 2 x tp 2, sequence parallel, zero 1"
std::string describe_layout(const PlanView& view) {
  return absl::StrFormat("%s, zero %d", describe_mesh(view.config, view.run.mesh),
                         view.config.parallel.zero);
}

void print_head(const PlanView& view, std::ostream& out) {
  const ModelConfig& model = view.config.model;
  out << absl::StrFormat("model  %s: %d layers, hidden size %d, vocabulary %d\n",
                         describe_model(view), model.num_hidden_layers, model.hidden_size,
                         model.vocab_size);
  const Mesh& mesh = view.run.mesh;
  const int ep = mesh.size(Axis::ep);
  out << absl::StrFormat("mesh   %s\n", describe_layout(view));
  out << absl::StrFormat(
      "step   %s tokens = dp %d%s x micro_batch_size %d x sequence_len %d x accumulation %d\n\n",
      format_count(tokens_per_step(view.config)), mesh.size(Axis::dp),
      ep > 1 ? absl::StrFormat(" x ep %d", ep) : "", view.config.train.micro_batch_size,
      view.config.data.sequence_len, view.run.accumulation_steps);
}

void print_row(std::ostream& out, std::string_view name, const std::array<std::string, 3>& columns,
               std::string_view note = "") {
  std::string line =
      absl::StrFormat("  %-20s %12s %12s %12s  %s", name, columns[0], columns[1], columns[2], note);
  line.erase(line.find_last_not_of(' ') + 1);
  out << line << "\n";
}

std::string count(int64_t value) { return value == 0 ? "-" : format_count(value); }

void print_work(const PlanView& view, std::ostream& out) {
  out << "\nwork of a rank\n";
  print_row(out, "program", {"runs a step", "flops a run", "bytes a run"});
  for (const Program& program : view.run.programs) {
    const Cost cost = cost_of(program);
    print_row(
        out, program.name,
        {count(runs_per_step(view, program)), in_units(cost.flops, kFlops), traffic(cost.bytes)});
  }
  print_row(out, "a step", {"", in_units(flops_per_step(view), kFlops), ""});
}

void print_collectives(const PlanView& view, std::ostream& out) {
  out << "\ncollectives of a rank\n";
  print_row(out, "program", {"calls a run", "tensors", "size"});
  for (const Program& program : view.run.programs) {
    const std::vector<CollectiveSummary> summary = summarize_collectives(program.graph);
    if (summary.empty()) print_row(out, program.name, {"-", "-", "-"});
    for (const CollectiveSummary& one : summary) {
      print_row(out, program.name, {count(one.calls), count(one.tensors), traffic(one.bytes)},
                one.name);
    }
  }
}

void print_text(const PlanView& view, std::ostream& out) {
  print_head(view, out);
  out << to_string(view.memory);
  print_work(view, out);
  print_collectives(view, out);
  out << "\nplan hash " << plan_hash(view.run) << "\n";
}

nlohmann::ordered_json to_json(const MemoryReport& memory) {
  nlohmann::ordered_json json;
  for (size_t i = 0; i < kNumMemoryCategories; ++i) {
    const std::string category(name(static_cast<MemoryCategory>(i)));
    json["persistent_bytes"][category] = memory.persistent_bytes[i];
    json["peak_bytes"][category] = memory.peak_bytes[i];
  }
  json["fragmentation_bytes"] = memory.fragmentation_bytes;
  json["arena_bytes"] = memory.arena_bytes;
  for (const HostMemory& host : memory.host) json["host_bytes"][host.name] = host.bytes;
  json["process_bytes"] = memory.process_bytes();
  if (memory.limit) {
    json["limit_bytes"] = memory.limit->bytes;
    json["limit_source"] = memory.limit->source;
  }
  return json;
}

nlohmann::ordered_json to_json(const PlanView& view, const Program& program) {
  const Cost cost = cost_of(program);
  nlohmann::ordered_json json = {{"name", program.name},
                                 {"runs_per_step", runs_per_step(view, program)},
                                 {"steps", program.steps.size()},
                                 {"max_live_bytes", program.plan.max_live_bytes},
                                 {"plan_bytes", program.plan.transient_bytes},
                                 {"flops", cost.flops},
                                 {"traffic_bytes", cost.bytes}};
  json["collectives"] = nlohmann::ordered_json::array();
  for (const CollectiveSummary& one : summarize_collectives(program.graph)) {
    json["collectives"].push_back(
        {{"name", one.name}, {"calls", one.calls}, {"tensors", one.tensors}, {"bytes", one.bytes}});
  }
  return json;
}

void print_json(const PlanView& view, std::ostream& out) {
  nlohmann::ordered_json json;
  json["parameters"] = num_parameters(view.run);
  json["vocab_size"] = view.config.model.vocab_size;
  json["ranks"] = view.num_ranks;
  for (const Axis axis : kAxes) json["mesh"][std::string(name(axis))] = view.run.mesh.size(axis);
  json["zero"] = view.config.parallel.zero;
  json["sequence_parallel"] = view.config.parallel.sequence_parallel;
  json["accumulation_steps"] = view.run.accumulation_steps;
  json["tokens_per_step"] = tokens_per_step(view.config);
  json["flops_per_step"] = flops_per_step(view);
  json["memory"] = to_json(view.memory);
  for (const Program& program : view.run.programs) {
    json["programs"].push_back(to_json(view, program));
  }
  json["plan_hash"] = plan_hash(view.run);
  out << json.dump(2) << "\n";
}

constexpr int kMostRanks = 1 << 20;

bool is_limit_set(const Config& config) {
  return config.runtime.memory_limit || std::getenv("CARAVAN_MEMLIMIT") != nullptr;
}

int ranks_of(const PlanRequest& request, const Config& config) {
  if (request.num_ranks > 0) return request.num_ranks;
  const ParallelConfig& p = config.parallel;
  const int64_t product = p.dp.value_or(1) * p.ep.value_or(1) * p.tp.value_or(1);
  if (product <= kMostRanks) return static_cast<int>(product);
  throw config_error(absl::StrFormat(
      "parallel.dp x ep x tp is %d, and a plan is for at most %d processes; use smaller ones",
      product, kMostRanks));
}

// Of a device: what was asked for, whatever this machine has; else that of this machine, if any.
std::optional<MemoryLimit> limit_for(const PlanView& view, int ranks_on_node) {
  MemoryLimitRequest request{.configured_bytes = view.config.runtime.memory_limit,
                             .ranks_on_node = ranks_on_node,
                             .system = read_system_memory()};
  if (view.device == DeviceKind::cuda && !is_limit_set(view.config)) {
    const std::vector<CudaDevice> devices = examine_cuda(true).devices;
    if (devices.empty()) return std::nullopt;
    request.ranks_on_node = 1;
    request.device_free_bytes = devices[0].free_bytes;
  }
  return memory_limit(request);
}

// As if this machine held as many of the ranks as it has processors.
MemoryReport report_for(const PlanView& view, int ranks_on_node) {
  const MemoryLimit host = memory_limit(
      {.configured_bytes = {}, .ranks_on_node = ranks_on_node, .system = read_system_memory()});
  const bool is_on_device = view.device == DeviceKind::cuda;
  ReportOptions options{.limit = limit_for(view, ranks_on_node),
                        .host = {{"libraries and code", resident_bytes()},
                                 {"batches read ahead", feed_bytes(view.config)}},
                        .is_on_device = is_on_device,
                        .zero = static_cast<int>(view.config.parallel.zero),
                        .dp = view.run.mesh.size(Axis::dp)};
  const auto report = [&] { return memory_report(view.run.layout, view.run.programs, options); };
  const int64_t room = is_on_device ? host.bytes - report().host_bytes()
                                    : options.limit->bytes - report().process_bytes();
  options.host.push_back(
      {"checkpoint copy",
       checkpoint_copy_bytes(view.config, view.run, view.run.mesh.with_rank(0), room)});
  return report();
}

// The workspace of kernels depends on the number of threads, so the plan does.
PlanView make_view(const Config& config, int num_ranks, const GraphObserver& observer) {
  validate(config, num_ranks);
  PlanView view{.config = config,
                .num_ranks = num_ranks,
                .device = plan_device(config),
                .run = {},
                .memory = {}};
  const int ranks_on_node = std::min(num_ranks, usable_processors());
  const int num_threads = threads_per_rank(config, ranks_on_node);
  view.run = plan_run(config, make_mesh(config, num_ranks),
                      workspace_rule(view.device, num_threads), observer);
  view.memory = report_for(view, ranks_on_node);
  return view;
}

const Program& chosen_program(const RunPlan& run, const std::string& name) {
  if (const Program* program = run.find(name)) return *program;
  throw config_error(absl::StrFormat(
      "--program %s: the run has none, it takes one micro step a step; use --program update",
      name));
}

void write_svg(const PlanView& view, const Program& program, const std::string& path) {
  const std::string title =
      absl::StrFormat("%s, %s, %d x %d tokens", describe_model(view), describe_layout(view),
                      view.config.train.micro_batch_size, view.config.data.sequence_len);
  std::ofstream file(path);
  file << plan_svg(program, view.run.layout, title);
  file.close();
  if (file) return;
  throw config_error(
      absl::StrFormat("--svg %s: cannot write it (%s); give a path that you may "
                      "write to",
                      path, std::strerror(errno)));
}

// A limit that somebody set is kept; `auto` describes this machine, which need not be the one.
void check_view(const PlanView& view, std::ostream& out) {
  if (is_limit_set(view.config)) return check_limit(view.memory);
  const std::string problem = over_limit(view.memory);
  if (!problem.empty()) out << "\ndoes not fit on this machine: " << problem << "\n";
}

}  // namespace

GraphObserver graph_dumper(const std::string& program, const std::string& pass, std::ostream& out) {
  expect_known("program", program, {kPrograms.begin(), kPrograms.end()});
  if (program == "evaluate")
    expect_known("pass of 'evaluate'", pass, {kEvaluationPasses.begin(), kEvaluationPasses.end()});
  else
    expect_known("pass", pass, {kTrainingPasses.begin(), kTrainingPasses.end()});
  return [=, &out](std::string_view of_program, std::string_view after, const Graph& graph) {
    if (of_program == program && after == pass) out << dump(graph);
  };
}

Config with_vocabulary(Config config) {
  const std::string& source = config.data.train.at(0).path;
  if (find_token_file(source, "train")) return with_data_vocabulary(std::move(config));
  if (config.model.vocab_size > 0) return config;
  throw config_error(absl::StrFormat(
      "model.vocab_size is not given and data.train has none to offer (there is no token file at "
      "%s); give it: model.vocab_size=N",
      printable(source)));
}

void print_plan(const PlanRequest& request, std::ostream& out) {
  const std::string program = request.program.empty() ? "update" : request.program;
  expect_known("program", program, {kPrograms.begin(), kPrograms.end()});
  GraphObserver observer;
  if (!request.dump_pass.empty()) observer = graph_dumper(program, request.dump_pass, out);
  const Config config =
      with_vocabulary(load_config(request.config_path, request.overrides, read_model));
  const PlanView view = make_view(config, ranks_of(request, config), observer);
  const Program& chosen = chosen_program(view.run, program);
  if (!request.dump_pass.empty()) return;
  if (request.json) {
    print_json(view, out);
  } else {
    print_text(view, out);
  }
  if (!request.svg_path.empty()) write_svg(view, chosen, request.svg_path);
  check_view(view, request.json ? std::cerr : out);
}

void add_plan_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("plan", "memory, communication and work of any number of ranks");
  const auto request = std::make_shared<PlanRequest>();  // CLI11 keeps references to the values
  command->add_option("CONFIG", request->config_path, "YAML file")->required();
  command->add_option("KEY=VALUE", request->overrides, "overrides, such as parallel.zero=2");
  command
      ->add_option("--ranks", request->num_ranks,
                   "processes; default: parallel.dp x ep x tp, auto counts as 1")
      ->check(CLI::Range(1, kMostRanks));
  CLI::Option* svg = command->add_option("--svg", request->svg_path, "write a picture of the plan");
  command->add_option("--program", request->program,
                      "of picture and graph: update (default), accumulate, evaluate");
  CLI::Option* json = command->add_flag("--json", request->json, "for programs");
  command
      ->add_option("--dump-graph", request->dump_pass,
                   "print the graph after a pass, nothing else: build, autodiff, optimizer, "
                   "parallelize, prefetch, expand_experts, bucket, schedule")
      ->excludes(svg)
      ->excludes(json);
  command->callback([request] { print_plan(*request, std::cout); });
}

}  // namespace caravan
