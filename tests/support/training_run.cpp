#include "tests/support/training_run.h"

#include <algorithm>
#include <cmath>

#include "launch/passes.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

ModelOptions options_of(const TrainingRun& run) {
  ModelOptions options = run.options;
  options.tensor_parallel = run.mesh.size(Axis::tp);
  return options;
}

PassSettings settings_of(const TrainingRun& run) {
  return {.mesh = run.mesh,
          .optimizer = run.optimizer,
          .accumulates = run.accumulation_steps > 1,
          .recompute = run.recompute,
          .bucket_bytes = run.bucket_bytes};
}

// `num_sequences`: of a micro-batch.
Graph logical_graph_of(const TrainingRun& run, ProgramKind kind, int64_t num_sequences) {
  Graph forward;
  Builder b(forward, run.dtype);
  const BatchInputs batch = declare_batch(b, num_sequences, run.sequence_len);
  const LossSums loss = model_loss(b, with_derived_sizes(run.model), batch, options_of(run));
  return logical_graph(kind, std::move(forward), loss, settings_of(run));
}

Graph training_graph(const TrainingRun& run, ProgramKind kind) {
  const int64_t sequences = run.num_sequences / run.accumulation_steps;
  return placed_graph(logical_graph_of(run, kind, sequences), settings_of(run));
}

// Micro-batch number `part` of the step.
HostTensors inputs_of(const TrainingRun& run, const TokenBatch& batch, int64_t part) {
  const int64_t count = run.num_sequences * run.sequence_len / run.accumulation_steps;
  const auto cut = [&](const std::vector<int32_t>& all) {
    const auto begin = all.begin() + part * count;
    return int_tensor({begin, begin + count});
  };
  return {{"input_ids", cut(batch.input_ids)},
          {"targets", cut(batch.targets)},
          {"positions", cut(batch.positions)},
          {"document_start", cut(batch.document_start)},
          {"keep", scalar_tensor(part == 0 ? 0.0f : 1.0f)}};
}

void run_step(const TrainingRun& run, ProgramRunner& runner, const TokenBatch& batch,
              int64_t step) {
  for (int64_t part = 0; part < run.accumulation_steps; ++part) {
    HostTensors inputs = inputs_of(run, batch, part);
    if (part + 1 < run.accumulation_steps) {
      runner.run("accumulate", inputs);
      continue;
    }
    inputs["learning_rate"] = scalar_tensor(static_cast<float>(run.learning_rate(step)));
    inputs["step"] = scalar_tensor(static_cast<float>(step));
    runner.run("update", inputs);
  }
  runner.record_output("loss." + std::to_string(step), "update", "loss");
  runner.record_output("grad_norm." + std::to_string(step), "update", "grad_norm");
}

float take_scalar(HostTensors& tensors, const std::string& name) {
  const auto node = tensors.extract(name);
  check(!node.empty(), "'%s' was not recorded", name);
  return node.mapped().at(0);
}

}  // namespace

TrainingRun tiny_run() {
  TrainingRun run;
  run.model.vocab_size = 50;
  run.model.hidden_size = 32;
  run.model.intermediate_size = 44;
  run.model.num_hidden_layers = 2;
  run.model.num_attention_heads = 4;
  run.model.num_key_value_heads = 2;
  run.model.initializer_range = 0.2;
  run.model.attention_bias = true;
  run.model.mlp_bias = true;
  run.optimizer = {.eps = 1e-3f, .max_grad_norm = 0.5f};
  return run;
}

TrainingRun tiny_llama4_run() {
  TrainingRun run = tiny_run();
  const ModelConfig shape = run.model;
  run.model = default_config(ModelFamily::llama4_text);
  run.model.vocab_size = shape.vocab_size;
  run.model.hidden_size = shape.hidden_size;
  run.model.intermediate_size = run.model.intermediate_size_mlp = shape.intermediate_size;
  run.model.num_hidden_layers = 2;
  run.model.num_attention_heads = shape.num_attention_heads;
  run.model.num_key_value_heads = shape.num_key_value_heads;
  run.model.initializer_range = shape.initializer_range;
  run.model.moe_layers = std::vector<int64_t>{};
  run.model.attention_chunk_size = 3;
  run.model.no_rope_layer_interval = 2;
  run.model.floor_scale = 2;
  return run;
}

TokenBatch random_batch(const TrainingRun& run, uint64_t index) {
  const RandomStream stream(9, RandomPurpose::test, index);
  const auto vocab = static_cast<uint64_t>(run.model.vocab_size);
  TokenBatch batch;
  const int64_t count = run.num_sequences * run.sequence_len;
  for (int64_t i = 0; i < count; ++i) {
    const auto element = static_cast<uint64_t>(i);
    batch.input_ids.push_back(static_cast<int32_t>(stream.bits(element) % vocab));
    const auto next = static_cast<int32_t>(stream.bits(element + 1) % vocab);
    batch.targets.push_back(i % 3 == 2 ? -1 : next);
    batch.positions.push_back(static_cast<int32_t>(i % run.sequence_len));
    batch.document_start.push_back(0);
  }
  return batch;
}

Graph logical_update_graph(const TrainingRun& run) {
  return logical_graph_of(run, ProgramKind::update, run.num_sequences / run.accumulation_steps);
}

std::vector<NamedGraph> training_graphs(const TrainingRun& run) {
  std::vector<NamedGraph> graphs = {{"update", training_graph(run, ProgramKind::update)}};
  if (run.accumulation_steps > 1) {
    graphs.push_back({"accumulate", training_graph(run, ProgramKind::accumulate)});
  }
  return graphs;
}

HostTensors initial_parameters(const Graph& graph, double initializer_range) {
  HostTensors parameters;
  for (const Value& value : graph.values) {
    if (value.kind != ValueKind::parameter) continue;
    HostTensor& tensor = parameters[value.name] = zeros(value.global_shape);
    const RandomStream stream(1, RandomPurpose::init, stable_hash(value.name));
    const bool is_norm = value.name.find("norm") != std::string::npos;
    for (int64_t i = 0; i < tensor.size(); ++i) {
      const double random = initializer_range * stream.normal(static_cast<uint64_t>(i));
      tensor.set(i, is_norm ? 1.0f : static_cast<float>(random));
    }
  }
  return parameters;
}

HostTensors evaluate(const TrainingRun& run, const TokenBatch& batch) {
  const Graph graph = placed_graph(logical_graph_of(run, ProgramKind::evaluate, run.num_sequences),
                                   settings_of(run));
  const HostTensors parameters = initial_parameters(graph, run.model.initializer_range);
  return run_on_ranks({{"evaluate", graph}}, run.mesh, run.runner, [&](ProgramRunner& runner) {
    for (const auto& [name, tensor] : parameters) runner.set(name, tensor);
    runner.run("evaluate", inputs_of(run, batch, 0));
    for (const auto& [name, id] : graph.outputs) runner.record_output(name, "evaluate", name);
  });
}

TrainingResult train(const TrainingRun& run, const std::vector<TokenBatch>& batches) {
  const std::vector<NamedGraph> graphs = training_graphs(run);
  const Graph& update = graphs[0].graph;
  const HostTensors start = initial_parameters(update, run.model.initializer_range);
  TrainingResult result;
  result.persistent = run_on_ranks(graphs, run.mesh, run.runner, [&](ProgramRunner& runner) {
    for (const auto& [name, tensor] : start) runner.set(name, tensor);
    // What a sum holds before its first use must not matter.
    for (const Value& value : update.values) {
      if (value.kind != ValueKind::accumulator) continue;
      HostTensor rubbish = zeros(value.global_shape);
      std::ranges::fill(rubbish.words, 0x7fc00000u);
      runner.set(value.name, rubbish);
    }
    for (size_t i = 0; i < batches.size(); ++i) {
      run_step(run, runner, batches[i], static_cast<int64_t>(i) + 1);
    }
    for (const Value& value : update.values) {
      const bool is_sum = value.kind == ValueKind::accumulator;
      if (is_persistent(value.kind) && !is_sum) runner.record_persistent(value.name);
    }
  });
  for (size_t step = 1; step <= batches.size(); ++step) {
    result.losses.push_back(take_scalar(result.persistent, "loss." + std::to_string(step)));
    result.grad_norms.push_back(
        take_scalar(result.persistent, "grad_norm." + std::to_string(step)));
  }
  return result;
}

double relative_difference(const TrainingResult& a, const TrainingResult& b) {
  check(a.losses.size() == b.losses.size() && a.persistent.size() == b.persistent.size(),
        "two runs of different lengths or models");
  double largest = 0;
  for (size_t i = 0; i < a.losses.size(); ++i) {
    const auto relative = [](float x, float y) { return std::abs(x - y) / std::abs(double{y}); };
    const double loss = relative(a.losses[i], b.losses[i]);
    const double norm = relative(a.grad_norms[i], b.grad_norms[i]);
    if (!std::isfinite(loss) || !std::isfinite(norm)) return INFINITY;
    largest = std::max({largest, loss, norm});
  }
  for (const auto& [name, tensor] : b.persistent) {
    largest = std::max(largest, relative_difference(a.persistent.at(name), tensor));
  }
  return largest;
}

}  // namespace caravan
