// What every family of models builds: from a batch of tokens to the sums of the loss, or to logits.
// The families are in files of their own (llama.h, llama4.h); the functions here pick one.
#pragma once

#include <vector>

#include "models/config.h"
#include "runtime/builder.h"
#include "runtime/router_sums.h"

namespace caravan {

// A batch of T tokens: whole sequences of sequence_len, one after another.
struct BatchInputs {
  Val input_ids;       // (T) i32
  Val targets;         // (T) i32, -1: not counted
  Val positions;       // (T) i32, from the start of the document
  Val document_start;  // (T) i32, see Attention in runtime/ops.h
  int64_t sequence_len;
};

// How the tokens of a batch lie: sharded over the data axes.
Placement batch_placement();

// Declares them, placed so; num_sequences is that of all ranks.
BatchInputs declare_batch(Builder& b, int64_t num_sequences, int64_t sequence_len);

// How a model is built beyond its numbers: none of this changes what it computes.
struct ModelOptions {
  int tensor_parallel = 1;         // ranks of tp: kv heads that do not divide by it are replicated
  bool sequence_parallel = false;  // the residual stream is sharded over tp by tokens
  bool whole_sequences = false;    // no documents: batch.document_start is all zeros
  // Of mixtures of experts. Without `training` routers have neither bias nor balance losses.
  bool training = true;
  bool router_bias = true;  // balances the load without a loss
  float aux_loss_coef = 0;
  float z_loss_coef = 0;
  Slots slots = {};  // rows of experts, see runtime/ops.h
};

// What a family builds: all but what is made of the logits.
struct DecoderOutput {
  Val hidden;  // (T, hidden_size) behind the last norm
  Val head;    // (V, hidden_size) the output projection
  std::vector<RouterSums> routers = {};
};

struct LossSums {
  Val loss_sum;   // () sum of -log p(target) over valid tokens
  Val num_valid;  // ()
  std::vector<RouterSums> routers = {};
};

// Everything from ids to the loss. `config` has its derived sizes and the vocabulary filled in.
LossSums model_loss(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                    const ModelOptions& options);

// (T, V) f32. They stay where they are made, by token and by vocabulary: no rank has all of them.
Val model_logits(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                 const ModelOptions& options);

}  // namespace caravan
