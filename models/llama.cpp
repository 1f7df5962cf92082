#include "models/llama.h"

#include "models/blocks.h"

namespace caravan {
namespace {

// x (T, hidden) -> (T, hidden)
Val attention(const ModelContext& c, const std::string& prefix, Val x) {
  const auto scope = c.b.scope("attention");
  const Heads heads = turn_heads(c, project_heads(c, prefix, x), false);
  return mix_heads(c, prefix, heads, c.batch.document_start);
}

// x (T, hidden) -> (T, hidden)
Val block(const ModelContext& c, Val x, int layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const Val normed = norm(c, prefix + "input_layernorm", x);
  x = add_to_residual(c, x, attention(c, prefix + "self_attn.", normed));
  const Val normed_again = norm(c, prefix + "post_attention_layernorm", x);
  const Val made = has_experts(c.config, layer)
                       ? mixture(c, prefix + "mlp.", normed_again, layer)
                       : mlp(c, prefix + "mlp.", normed_again, dense_width(c.config));
  return add_to_residual(c, x, made);
}

}  // namespace

DecoderOutput llama(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                    const ModelOptions& options) {
  std::vector<RouterSums> routers;
  const ModelContext c{b, config, batch, options, routers};
  return decoder(c, [&](Val x, int layer) { return block(c, x, layer); });
}

}  // namespace caravan
