#include "models/llama.h"

#include <string>

namespace caravan {
namespace {

// What every part of the model needs while it is built.
struct Context {
  Builder& b;
  const ModelConfig& config;
  const BatchInputs& batch;
};

const Placement kColumnParallel = Placement{}.with(Axis::tp, shard(0));  // splits the outputs
const Placement kRowParallel = Placement{}.with(Axis::tp, shard(1));     // splits the inputs

Val weight(const Context& c, const std::string& name, int64_t out, int64_t in,
           const Placement& placement) {
  const auto std = static_cast<float>(c.config.initializer_range);
  return c.b.parameter(name + ".weight", {out, in}, {Initializer::Kind::normal, std}, placement);
}

Val norm(const Context& c, const std::string& name, Val x) {
  const int64_t hidden = c.config.hidden_size;
  const Val weight = c.b.parameter(name + ".weight", {hidden}, {Initializer::Kind::ones});
  return c.b.rms_norm(x, weight, static_cast<float>(c.config.rms_norm_eps));
}

struct Projection {
  std::string name;
  int64_t out;
  Placement placement;
  bool has_bias;
};

// x (T, in) -> (T, out)
Val project(const Context& c, Val x, const Projection& p) {
  const auto scope = c.b.scope(p.name.substr(p.name.rfind('.') + 1));
  const Val w = weight(c, p.name, p.out, c.b.shape(x)[1], p.placement);
  if (!p.has_bias) return c.b.linear(x, w);
  const bool splits_outputs = p.placement[Axis::tp] == shard(0);
  const Placement placement = splits_outputs ? kColumnParallel : Placement{};
  return c.b.linear(x, w, c.b.parameter(p.name + ".bias", {p.out}, {}, placement));
}

// x (T, hidden) -> (T, hidden)
Val attention(const Context& c, const std::string& prefix, Val x) {
  const auto scope = c.b.scope("attention");
  const ModelConfig& m = c.config;
  const int64_t q_width = m.num_attention_heads * m.head_dim;
  const int64_t kv_width = m.num_key_value_heads * m.head_dim;
  const bool bias = m.attention_bias;
  const Rope rope{m.head_dim, m.rope_theta, m.rope_scaling};

  Val q = project(c, x, {prefix + "q_proj", q_width, kColumnParallel, bias});   // (T, H*h)
  Val k = project(c, x, {prefix + "k_proj", kv_width, kColumnParallel, bias});  // (T, KV*h)
  Val v = project(c, x, {prefix + "v_proj", kv_width, kColumnParallel, bias});  // (T, KV*h)
  q = c.b.rope(q, c.batch.positions, rope);
  k = c.b.rope(k, c.batch.positions, rope);
  const Val mixed =
      c.b.attention(q, k, v, c.batch.document_start, {m.head_dim, c.batch.sequence_len});
  return project(c, mixed, {prefix + "o_proj", m.hidden_size, kRowParallel, bias});
}

// x (T, hidden) -> (T, hidden)
Val mlp(const Context& c, const std::string& prefix, Val x) {
  const auto scope = c.b.scope("mlp");
  const ModelConfig& m = c.config;
  const Val gate =
      project(c, x, {prefix + "gate_proj", m.intermediate_size, kColumnParallel, m.mlp_bias});
  const Val up =
      project(c, x, {prefix + "up_proj", m.intermediate_size, kColumnParallel, m.mlp_bias});
  return project(c, c.b.swiglu(gate, up),
                 {prefix + "down_proj", m.hidden_size, kRowParallel, m.mlp_bias});
}

// x (T, hidden) -> (T, hidden)
Val block(const Context& c, Val x, int layer) {
  const auto scope = c.b.scope("layers", layer);
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const Val normed = norm(c, prefix + "input_layernorm", x);
  x = c.b.add(x, attention(c, prefix + "self_attn.", normed));
  const Val normed_again = norm(c, prefix + "post_attention_layernorm", x);
  return c.b.add(x, mlp(c, prefix + "mlp.", normed_again));
}

}  // namespace

LossSums llama_loss(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                    const ModelOptions&) {
  const Context c{b, config, batch};
  const Val embedding =
      weight(c, "model.embed_tokens", config.vocab_size, config.hidden_size, {});  // (V, D)
  Val x = b.embedding(embedding, batch.input_ids);                                 // (T, D)
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) x = block(c, x, layer);
  x = norm(c, "model.norm", x);
  const Val head = config.tie_word_embeddings
                       ? embedding
                       : weight(c, "lm_head", config.vocab_size, config.hidden_size, {});
  const std::vector<Val> loss = b.linear_cross_entropy(x, head, batch.targets);
  return {loss[0], loss[1]};
}

}  // namespace caravan
