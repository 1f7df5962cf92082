#include "models/llama4.h"

#include "models/blocks.h"

namespace caravan {
namespace {

// Where the keys that a token sees begin.
struct Starts {
  Val document;  // (T) i32
  Val chunk;     // (T) i32; none when no layer is chunked
};

Starts make_starts(const ModelContext& c) {
  Starts starts{c.batch.document_start, Val::none};
  bool any = false;
  for (int64_t layer = 0; layer < c.config.num_hidden_layers; ++layer) {
    any = any || is_chunked(c.config, layer);
  }
  if (!any) return starts;
  const ChunkStart op{c.config.attention_chunk_size, c.batch.sequence_len};
  starts.chunk = c.b.chunk_start(starts.document, op);
  return starts;
}

// Interleaved rope, then queries and keys of length one: a norm without a weight.
Heads with_positions(const ModelContext& c, const Heads& projected) {
  const Heads turned = turn_heads(c, projected, true);
  if (!c.config.use_qk_norm) return turned;
  const HeadNorm op{c.config.head_dim, static_cast<float>(c.config.rms_norm_eps)};
  return {c.b.head_norm(turned.q, op), c.b.head_norm(turned.k, op), turned.v};
}

// Without rope the softmax flattens as documents grow: far queries are sharpened.
Heads without_positions(const ModelContext& c, const Heads& projected) {
  if (!c.config.attn_temperature_tuning) return projected;
  const TemperatureScale op{c.config.floor_scale, c.config.attn_scale};
  return {c.b.temperature_scale(projected.q, c.batch.positions, op), projected.k, projected.v};
}

// x (T, hidden) -> (T, hidden)
Val attention(const ModelContext& c, const std::string& prefix, Val x, int layer,
              const Starts& starts) {
  const auto scope = c.b.scope("attention");
  const Heads projected = project_heads(c, prefix, x);
  const Heads heads =
      has_rope(c.config, layer) ? with_positions(c, projected) : without_positions(c, projected);
  return mix_heads(c, prefix, heads, is_chunked(c.config, layer) ? starts.chunk : starts.document);
}

// x (T, hidden) -> (T, hidden)
Val feed_forward(const ModelContext& c, const std::string& prefix, Val x, int layer) {
  if (has_experts(c.config, layer)) return mixture(c, prefix, x, layer);
  return mlp(c, prefix, x, dense_width(c.config));
}

// x (T, hidden) -> (T, hidden)
Val block(const ModelContext& c, Val x, int layer, const Starts& starts) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const Val normed = norm(c, prefix + "input_layernorm", x);
  x = add_to_residual(c, x, attention(c, prefix + "self_attn.", normed, layer, starts));
  const Val normed_again = norm(c, prefix + "post_attention_layernorm", x);
  return add_to_residual(c, x, feed_forward(c, prefix + "feed_forward.", normed_again, layer));
}

}  // namespace

DecoderOutput llama4(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                     const ModelOptions& options) {
  std::vector<RouterSums> routers;
  const ModelContext c{b, config, batch, options, routers};
  const Starts starts = make_starts(c);
  return decoder(c, [&](Val x, int layer) { return block(c, x, layer, starts); });
}

}  // namespace caravan
