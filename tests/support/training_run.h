// Whole training steps of a small Llama on virtual ranks, through every pass: the same steps on
// any mesh, with any ZeRO stage, split into any number of micro-batches.
#pragma once

#include <functional>

#include "models/model.h"
#include "optim/optimizer.h"
#include "tests/support/program_runner.h"

namespace caravan {

// A step's tokens: whole sequences, one after another.
struct TokenBatch {
  std::vector<int32_t> input_ids;
  std::vector<int32_t> targets;  // -1: not counted
  std::vector<int32_t> positions;
  std::vector<int32_t> document_start;
};

struct TrainingRun {
  ModelConfig model;
  ModelOptions options;
  OptimizerSettings optimizer;
  int64_t sequence_len = 8;
  int64_t num_sequences = 24;  // of a step
  int64_t accumulation_steps = 1;
  Mesh mesh;
  int64_t bucket_bytes = 4096;
  std::function<double(int64_t step)> learning_rate = [](int64_t) { return 1e-2; };
  bool recompute = true;
  DType dtype = DType::f32;  // of activations; bf16 wants runner.reference
  RunnerOptions runner;
};

struct TrainingResult {
  std::vector<float> losses;      // by step
  std::vector<float> grad_norms;  // by step
  HostTensors persistent;         // parameters and moments after the last step
};

// 2 layers, hidden 32, 4 heads, 2 key-value heads, vocabulary 50, untied, with biases. A wide
// initial range makes every gradient large; a large eps keeps AdamW from magnifying rounding.
TrainingRun tiny_run();
// The same sizes as a Llama 4: chunks of 3 tokens, the second layer without rope, no biases. No
// experts yet.
TrainingRun tiny_llama4_run();
// Random tokens; the target of every third token is not counted.
TokenBatch random_batch(const TrainingRun& run, uint64_t index);

// "update", and "accumulate" when the run has more than one micro-batch, ready to be planned.
std::vector<NamedGraph> training_graphs(const TrainingRun& run);
// The update program before parallelize: what a mesh must not change.
Graph logical_update_graph(const TrainingRun& run);
// Element e of a tensor is number e of the stream that its name selects, biases too, so that
// every path carries something; norm weights are 1.
HostTensors initial_parameters(const Graph& graph, double initializer_range);

// The sums of the loss over a batch, "loss_sum" and "num_valid", with the parameters of step 0.
HostTensors evaluate(const TrainingRun& run, const TokenBatch& batch);

TrainingResult train(const TrainingRun& run, const std::vector<TokenBatch>& batches);

// The largest relative difference of losses, norms and persistent tensors; both have the same ones.
double relative_difference(const TrainingResult& a, const TrainingResult& b);

}  // namespace caravan
