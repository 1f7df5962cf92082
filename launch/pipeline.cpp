#include "launch/pipeline.h"

#include <algorithm>

#include "launch/layout_rules.h"
#include "launch/model_options.h"
#include "models/model.h"
#include "optim/optimizer.h"
#include "parallel/bucket.h"
#include "parallel/expand_experts.h"
#include "parallel/parallelize.h"
#include "parallel/prefetch.h"
#include "parallel/shard_parameters.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/passes/autodiff.h"
#include "runtime/passes/fuse_add.h"
#include "runtime/passes/merge_loss.h"
#include "runtime/passes/plan_memory.h"
#include "runtime/passes/prune.h"
#include "runtime/passes/recompute.h"
#include "runtime/passes/schedule.h"

namespace caravan {
namespace {

enum class ProgramKind { accumulate, update, evaluate };

std::string_view name(ProgramKind kind) {
  switch (kind) {
    case ProgramKind::accumulate:
      return "accumulate";
    case ProgramKind::update:
      return "update";
    case ProgramKind::evaluate:
      return "evaluate";
  }
  throw internal_error("unknown kind of program");
}

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

class Pipeline {
 public:
  Pipeline(const Config& config, const Mesh& mesh, int64_t accumulation_steps,
           const GraphObserver& observer)
      : config_(config), mesh_(mesh), accumulates_(accumulation_steps > 1), observer_(observer) {}

  // Every pass up to the order of execution.
  Graph build(ProgramKind kind) const {
    const auto passed = [&](std::string_view pass, const Graph& graph) {
      verify(graph, pass);
      if (observer_) observer_(name(kind), pass, graph);
    };
    Graph graph;
    const LossSums loss = build_forward(graph, kind != ProgramKind::evaluate);
    if (config_.parallel.zero >= 3) graph = shard_parameters(std::move(graph), mesh_);
    if (kind == ProgramKind::evaluate) {
      graph.outputs = {{"loss_sum", loss.loss_sum}, {"num_valid", loss.num_valid}};
    }
    passed("build", graph);
    if (kind != ProgramKind::evaluate) {
      Differentiated backward = differentiate(std::move(graph), loss.loss_sum);
      graph = std::move(backward.graph);
      passed("autodiff", graph);
      graph = merge_loss(std::move(graph));
      passed("merge_loss", graph);
      if (config_.runtime.recompute == Recompute::automatic) graph = recompute(std::move(graph));
      passed("recompute", graph);
      append_optimizer(graph, kind,
                       {backward.gradients, loss.loss_sum, loss.num_valid, loss.routers});
      graph = prune(std::move(graph));
      passed("optimizer", graph);
    }
    graph = parallelize(graph, mesh_);
    passed("parallelize", graph);
    graph = prefetch(std::move(graph));
    passed("prefetch", graph);
    graph = expand_experts(std::move(graph), mesh_);
    passed("expand_experts", graph);
    graph = fuse_add(std::move(graph));
    passed("fuse_add", graph);
    graph = bucket_gradients(reorder(std::move(graph)), config_.parallel.bucket_bytes);
    passed("bucket", graph);
    graph = reorder(std::move(graph));
    passed("schedule", graph);
    return graph;
  }

 private:
  LossSums build_forward(Graph& graph, bool training) const {
    Builder b(graph, config_.runtime.dtype);
    const int64_t replicas = mesh_.size(Axis::dp) * mesh_.size(Axis::ep);
    const BatchInputs batch =
        declare_batch(b, config_.train.micro_batch_size * replicas, config_.data.sequence_len);
    return model_loss(b, config_.model, batch, model_options(config_, mesh_, training));
  }

  void append_optimizer(Graph& graph, ProgramKind kind, const MicroBatchResult& result) const {
    const OptimizerSettings settings = optimizer_settings(config_);
    if (kind == ProgramKind::accumulate)
      append_accumulate(graph, result, settings);
    else
      append_update(graph, result, accumulates_, settings);
  }

  const Config& config_;
  const Mesh& mesh_;
  bool accumulates_;
  const GraphObserver& observer_;
};

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
                 const GraphObserver& observer) {
  RunPlan run;
  run.mesh = mesh;
  run.accumulation_steps = accumulation_steps(config, mesh.num_ranks());
  const Pipeline pipeline(config, mesh, run.accumulation_steps, observer);
  std::vector<ProgramKind> kinds = {ProgramKind::update};  // first: it declares everything
  if (run.accumulation_steps > 1) kinds.push_back(ProgramKind::accumulate);
  kinds.push_back(ProgramKind::evaluate);
  for (const ProgramKind kind : kinds) {
    Program& program = run.programs.emplace_back();
    program.name = name(kind);
    program.graph = pipeline.build(kind);
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
