// The Llama family (Llama 2 and 3; Touvron et al., Grattafiori et al.): pre-norm blocks of grouped
// query attention with rope and SwiGLU. Parameters have Hugging Face's names and shapes.
#pragma once

#include "models/config.h"
#include "runtime/builder.h"

namespace caravan {

// A batch of T tokens: whole sequences of sequence_len, one after another.
struct BatchInputs {
  Val input_ids;       // (T) i32
  Val targets;         // (T) i32, -1: not counted
  Val positions;       // (T) i32, from the start of the document
  Val document_start;  // (T) i32, see Attention in runtime/ops.h
  int64_t sequence_len;
};

// Declares them, sharded over the data axes; num_sequences is that of all ranks.
BatchInputs declare_batch(Builder& b, int64_t num_sequences, int64_t sequence_len);

struct LossSums {
  Val loss_sum;   // () sum of -log p(target) over valid tokens
  Val num_valid;  // ()
};

// Everything from ids to the loss. `config` has its derived sizes and the vocabulary filled in.
LossSums llama_loss(Builder& b, const ModelConfig& config, const BatchInputs& batch);

}  // namespace caravan
