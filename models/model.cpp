#include "models/model.h"

#include "absl/strings/str_format.h"
#include "models/llama.h"
#include "models/llama4.h"
#include "runtime/error.h"

namespace caravan {

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

namespace {

// What tp splits whole must divide by it; key and value heads are replicated where they do not.
void check_tensor_parallel(const ModelConfig& config, int tensor_parallel) {
  const auto check_divides = [&](const char* key, int64_t size) {
    if (size % tensor_parallel == 0) return;
    throw config_error(absl::StrFormat(
        "model.%s = %d does not divide by parallel.tp = %d; choose tp so that it does", key, size,
        tensor_parallel));
  };
  check_divides("num_attention_heads", config.num_attention_heads);
  check_divides("vocab_size", config.vocab_size);
}

}  // namespace

LossSums model_loss(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                    const ModelOptions& options) {
  check_tensor_parallel(config, options.tensor_parallel);
  switch (config.family) {
    case ModelFamily::llama:
      return llama_loss(b, config, batch, options);
    case ModelFamily::llama4_text:
      return llama4_loss(b, config, batch, options);
  }
  throw internal_error("unknown family of models");
}

}  // namespace caravan
