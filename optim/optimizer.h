// Appends the update of a training step to a graph: sums over micro-batches, the global norm,
// clipping, AdamW. State is placed like its parameter, or sharded over dp (ZeRO).
#pragma once

#include <utility>
#include <vector>

#include "runtime/router_sums.h"

namespace caravan {

struct OptimizerSettings {
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0.1f;   // of matrices; norms and biases do not decay
  float max_grad_norm = 1.0f;  // 0: no clipping
  // ZeRO: 0 nothing is sharded, 1 the moments are, 2 also the sums of gradients.
  int zero_stage = 0;
  float router_bias_rate = 1e-3f;  // by how much a step moves the biases of routers that have one
};

// What backward left: sums over the tokens of a micro-batch, not means.
struct MicroBatchResult {
  std::vector<std::pair<ValueId, ValueId>> gradients;  // parameter, gradient
  ValueId loss_sum;
  ValueId num_valid;
  std::vector<RouterSums> routers = {};
};

// The last micro-batch of a step, or the only one. Adds what earlier ones accumulated (when
// `accumulated`), then updates parameters and state.
// When the loss or the norm is not finite, all ranks leave parameters and state as they are.
//   inputs:  learning_rate (), step (): updates so far with this one, keep () when accumulated
//   outputs: loss () the mean over all valid tokens of the step, grad_norm () of the mean gradient
//            before clipping, num_valid (); of each router, summed over the step and all ranks,
//            "router.<layer>.load" (E), "router.<layer>.dropped" (), "router.<layer>.further" ()
void append_update(Graph& graph, const MicroBatchResult& result, bool accumulated,
                   const OptimizerSettings& settings);

// A micro-batch that others of the same step follow: only adds to the sums.
//   inputs: keep (): 0 in the first micro-batch of a step, then 1
void append_accumulate(Graph& graph, const MicroBatchResult& result,
                       const OptimizerSettings& settings);

}  // namespace caravan
