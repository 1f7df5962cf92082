#include "launch/pipeline.h"

#include <algorithm>

#include "launch/layout_rules.h"
#include "launch/model_options.h"
#include "launch/passes.h"
#include "models/model.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/passes/plan_memory.h"
#include "runtime/passes/schedule.h"

namespace caravan {
namespace {

OptimizerSettings optimizer_settings(const Config& config) {
  const OptimizerConfig& o = config.optimizer;
  const MoeConfig moe = config.moe.value_or(MoeConfig{});
  return {.beta1 = static_cast<float>(o.adam_beta1),
          .beta2 = static_cast<float>(o.adam_beta2),
          .eps = static_cast<float>(o.adam_epsilon),
          .weight_decay = static_cast<float>(o.weight_decay),
          .max_grad_norm = static_cast<float>(o.max_grad_norm),
          .zero_stage = static_cast<int>(config.parallel.zero),
          .router_bias_rate = static_cast<float>(moe.bias_update_rate)};
}

Graph build_graph(ProgramKind kind, const Config& config, const PassSettings& settings,
                  const GraphObserver& observer) {
  const Mesh& mesh = settings.mesh;
  Graph forward;
  Builder b(forward, config.runtime.dtype);
  const int64_t replicas = mesh.size(Axis::dp) * mesh.size(Axis::ep);
  const BatchInputs batch =
      declare_batch(b, config.train.micro_batch_size * replicas, config.data.sequence_len);
  const bool training = kind == ProgramKind::accumulate || kind == ProgramKind::update;
  const ModelOptions options = model_options(config, mesh, training);
  LossSums loss{};
  if (kind == ProgramKind::logits) {
    b.output("logits", model_logits(b, config.model, batch, options));
  } else {
    loss = model_loss(b, config.model, batch, options);
  }
  const PassObserver passed = [&](std::string_view pass, const Graph& graph) {
    if (observer) observer(name(kind), pass, graph);
  };
  return placed_graph(logical_graph(kind, std::move(forward), loss, settings, passed), settings,
                      passed);
}

// The one that declares all that persists first.
std::vector<ProgramKind> programs_of(RunPurpose purpose, int64_t accumulation_steps) {
  if (purpose == RunPurpose::logits) return {ProgramKind::logits};
  if (accumulation_steps == 1) return {ProgramKind::update, ProgramKind::evaluate};
  return {ProgramKind::update, ProgramKind::accumulate, ProgramKind::evaluate};
}

}  // namespace

const Program* RunPlan::find(std::string_view wanted) const {
  const auto found = std::ranges::find(programs, wanted, &Program::name);
  return found == programs.end() ? nullptr : &*found;
}

const Program& RunPlan::program(std::string_view wanted) const {
  const Program* found = find(wanted);
  check(found != nullptr, "the run has no program '%s'", wanted);
  return *found;
}

int64_t RunPlan::transient_bytes() const {
  int64_t most = 0;
  for (const Program& program : programs) most = std::max(most, program.plan.transient_bytes);
  return most;
}

Mesh make_mesh(const Config& config, int world_size) {
  const ParallelSizes sizes = parallel_sizes(config.parallel, world_size);
  Mesh mesh;
  const auto set = [&](Axis axis, int64_t size) {
    mesh.sizes[static_cast<size_t>(axis)] = static_cast<int>(size);
  };
  set(Axis::dp, sizes.dp);
  set(Axis::ep, sizes.ep);
  set(Axis::tp, sizes.tp);
  return mesh;
}

std::string describe_mesh(const Config& config, const Mesh& mesh) {
  const bool splits_sequences = config.parallel.sequence_parallel && mesh.size(Axis::tp) > 1;
  return to_string(mesh) + (splits_sequences ? ", sequence parallel" : "");
}

RunPlan plan_run(const Config& config, const Mesh& mesh, const WorkspaceRule& workspace,
                 const GraphObserver& observer, RunPurpose purpose) {
  RunPlan run;
  run.mesh = mesh;
  run.accumulation_steps = accumulation_steps(config, mesh.num_ranks());
  const PassSettings settings{.mesh = mesh,
                              .optimizer = optimizer_settings(config),
                              .accumulates = run.accumulation_steps > 1,
                              .recompute = config.runtime.recompute == Recompute::automatic,
                              .bucket_bytes = config.parallel.bucket_bytes};
  for (const ProgramKind kind : programs_of(purpose, run.accumulation_steps)) {
    Program& program = run.programs.emplace_back();
    program.name = name(kind);
    program.graph = build_graph(kind, config, settings, observer);
    program.mesh = mesh;
  }
  std::vector<const Graph*> graphs;
  for (const Program& program : run.programs) graphs.push_back(&program.graph);
  run.layout = plan_persistent(graphs, mesh);

  const PlanOptions options{.keep_all = config.runtime.keep_all,
                            .workspace_bytes = [&](const Graph& graph, const Node& node) {
                              return workspace(node.op, specs_of(graph, node.inputs),
                                               specs_of(graph, node.outputs));
                            }};
  for (Program& program : run.programs) {
    program.steps = schedule(program.graph);
    program.plan = plan_memory(program.graph, program.steps, mesh, run.layout, options);
    if (kDebugBuild) verify_plan(program);
  }
  return run;
}

}  // namespace caravan
