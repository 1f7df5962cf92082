#include "models/model.h"

#include "models/llama.h"
#include "models/llama4.h"
#include "runtime/error.h"

namespace caravan {
namespace {

DecoderOutput decode(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                     const ModelOptions& options) {
  switch (config.family) {
    case ModelFamily::llama:
      return llama(b, config, batch, options);
    case ModelFamily::llama4_text:
      return llama4(b, config, batch, options);
  }
  throw internal_error("unknown family of models");
}

}  // namespace

Placement batch_placement() {
  return Placement{}.with(Axis::dp, shard(0)).with(Axis::ep, shard(0));
}

BatchInputs declare_batch(Builder& b, int64_t num_sequences, int64_t sequence_len) {
  const Shape tokens = {num_sequences * sequence_len};
  const auto declare = [&](const char* name) {
    return b.input(name, tokens, DType::i32, batch_placement());
  };
  return {declare("input_ids"), declare("targets"), declare("positions"), declare("document_start"),
          sequence_len};
}

LossSums model_loss(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                    const ModelOptions& options) {
  const DecoderOutput made = decode(b, config, batch, options);
  const std::vector<Val> loss = b.linear_cross_entropy(made.hidden, made.head, batch.targets);
  return {loss[0], loss[1], made.routers};
}

Val model_logits(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                 const ModelOptions& options) {
  const DecoderOutput made = decode(b, config, batch, options);
  const Val logits = b.logits(made.hidden, made.head);
  b.place(logits, batch_placement().with(Axis::tp, shard(1)));
  return logits;
}

}  // namespace caravan
