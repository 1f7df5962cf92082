#include "models/blocks.h"

namespace caravan {
namespace {

const Placement kColumnParallel = Placement{}.with(Axis::tp, shard(0));  // splits the outputs
const Placement kRowParallel = Placement{}.with(Axis::tp, shard(1));     // splits the inputs
// Experts are dealt out, and split inside like an MLP; stored (E, in, out).
const Placement kColumnParallelExperts =
    Placement{}.with(Axis::ep, shard(0)).with(Axis::tp, shard(2));
const Placement kRowParallelExperts = Placement{}.with(Axis::ep, shard(0)).with(Axis::tp, shard(1));
const Placement kByVocabulary = Placement{}.with(Axis::tp, shard(0));
const Placement kByToken = Placement{}.with(Axis::tp, shard(0));

Initializer normal_initializer(const ModelContext& c) {
  return {Initializer::Kind::normal, static_cast<float>(c.config.initializer_range)};
}

Val weight(const ModelContext& c, const std::string& name, int64_t out, int64_t in,
           const Placement& placement) {
  return c.b.parameter(name + ".weight", {out, in}, normal_initializer(c), placement);
}

// Sequence parallelism: what lies between blocks is sharded by tokens.
void place_residual(const ModelContext& c, Val x) {
  if (c.options.sequence_parallel) c.b.place(x, kByToken);
}

struct Projection {
  std::string name;
  int64_t out;
  Placement placement;
  bool has_bias = false;
};

// x (T, in) -> (T, out)
Val project(const ModelContext& c, Val x, const Projection& p) {
  const auto scope = c.b.scope(p.name.substr(p.name.rfind('.') + 1));
  const Val w = weight(c, p.name, p.out, c.b.shape(x)[1], p.placement);
  const bool splits_outputs = p.placement[Axis::tp] == shard(0);
  const Placement placement = splits_outputs ? kColumnParallel : Placement{};
  const Val bias = p.has_bias ? c.b.parameter(p.name + ".bias", {p.out}, {}, placement) : Val::none;
  const Val y = c.b.linear(x, w);
  if (p.placement == kRowParallel) place_residual(c, y);  // before a bias asks for the whole sum
  return p.has_bias ? c.b.one(AddBias{}, {y, bias}) : y;
}

}  // namespace

Val norm(const ModelContext& c, const std::string& name, Val x) {
  const int64_t hidden = c.config.hidden_size;
  const Val weight = c.b.parameter(name + ".weight", {hidden}, {Initializer::Kind::ones});
  return c.b.rms_norm(x, weight, static_cast<float>(c.config.rms_norm_eps));
}

Heads project_heads(const ModelContext& c, const std::string& prefix, Val x) {
  const ModelConfig& m = c.config;
  const int64_t q_width = m.num_attention_heads * m.head_dim;
  const int64_t kv_width = m.num_key_value_heads * m.head_dim;
  const bool bias = m.attention_bias;
  const Val q = project(c, x, {prefix + "q_proj", q_width, kColumnParallel, bias});
  const bool splits = m.num_key_value_heads % c.options.tensor_parallel == 0;
  const Placement keys = splits ? kColumnParallel : Placement{};
  const Val k = project(c, x, {prefix + "k_proj", kv_width, keys, bias});
  const Val v = project(c, x, {prefix + "v_proj", kv_width, keys, bias});
  return {q, k, v};
}

Heads turn_heads(const ModelContext& c, const Heads& heads, bool interleaved) {
  const ModelConfig& m = c.config;
  const Rope rope{.head_dim = m.head_dim,
                  .theta = m.rope_theta,
                  .scaling = m.rope_scaling,
                  .interleaved = interleaved};
  const Val q = c.b.rope(heads.q, c.batch.positions, rope);
  const Val k = c.b.rope(heads.k, c.batch.positions, rope);
  return {q, k, heads.v};
}

Val mix_heads(const ModelContext& c, const std::string& prefix, const Heads& heads,
              Val document_start) {
  const ModelConfig& m = c.config;
  Attention op{m.head_dim, c.batch.sequence_len};
  op.whole_sequences = c.options.whole_sequences && document_start == c.batch.document_start;
  const Val mixed = c.b.attention(heads.q, heads.k, heads.v, document_start, op);  // (T, H*h)
  return project(c, mixed, {prefix + "o_proj", m.hidden_size, kRowParallel, m.attention_bias});
}

Val mlp(const ModelContext& c, const std::string& prefix, Val x, int64_t width) {
  const auto scope = c.b.scope("mlp");
  const bool bias = c.config.mlp_bias;
  const Val gate = project(c, x, {prefix + "gate_proj", width, kColumnParallel, bias});
  const Val up = project(c, x, {prefix + "up_proj", width, kColumnParallel, bias});
  return project(c, c.b.swiglu(gate, up),
                 {prefix + "down_proj", c.config.hidden_size, kRowParallel, bias});
}

namespace {

struct Routed {
  Val experts;  // (T, k) i32
  Val scores;   // (T, k)
  Val load;     // (E)
  Val bias;     // (E), or none
};

Routed route(const ModelContext& c, const std::string& prefix, Val x) {
  const auto scope = c.b.scope("router");
  const ModelOptions& o = c.options;
  const int64_t num_experts = c.config.num_local_experts;
  const Val w = weight(c, prefix + "router", num_experts, c.config.hidden_size, {});
  const Val logits = c.b.logits(x, w);  // (T, E)
  Val bias = Val::none;
  if (o.training && o.router_bias) {
    const std::string layer = prefix.substr(0, prefix.size() - 1);
    bias = c.b.persistent(ValueKind::state, "router_bias." + layer, {num_experts}, {});
  }
  const Route op{.top_k = c.config.num_experts_per_tok,
                 .aux_loss_coef = o.training ? o.aux_loss_coef : 0,
                 .z_loss_coef = o.training ? o.z_loss_coef : 0,
                 .sequence_len = c.batch.sequence_len};
  const std::vector<Val> routed = c.b.route(logits, bias, op);
  return {.experts = routed[1], .scores = routed[0], .load = routed[2], .bias = bias};
}

// What experts make of x -> out (T, hidden), dropped (), further ()
std::vector<Val> experts(const ModelContext& c, const std::string& prefix, Val x,
                         const Routed& routed) {
  const auto scope = c.b.scope("experts");
  const int64_t count = c.config.num_local_experts, hidden = c.config.hidden_size;
  const int64_t width = c.config.intermediate_size;
  const auto stack = [&](const char* name, int64_t in, int64_t out, const Placement& placement) {
    return c.b.parameter(prefix + name, {count, in, out}, normal_initializer(c), placement);
  };
  const Val gate = stack("gate_proj", hidden, width, kColumnParallelExperts);  // (E, D, F)
  const Val up = stack("up_proj", hidden, width, kColumnParallelExperts);      // (E, D, F)
  const Val down = stack("down_proj", width, hidden, kRowParallelExperts);     // (E, F, D)
  return c.b.experts({x, routed.scores, routed.experts, gate, up, down}, {c.options.slots, count});
}

}  // namespace

Val mixture(const ModelContext& c, const std::string& prefix, Val x, int layer) {
  const auto scope = c.b.scope("moe");
  const Routed routed = route(c, prefix, x);
  const std::vector<Val> out = experts(c, prefix + "experts.", x, routed);
  c.routers.push_back({.layer = layer,
                       .bias = routed.bias,
                       .load = routed.load,
                       .dropped = out[1],
                       .further = out[2]});
  const Val shared = mlp(c, prefix + "shared_expert.", x, c.config.intermediate_size);
  return c.b.add(shared, out[0]);
}

Val add_to_residual(const ModelContext& c, Val x, Val y) {
  const Val sum = c.b.add(x, y);
  place_residual(c, sum);
  return sum;
}

DecoderOutput decoder(const ModelContext& c, const std::function<Val(Val, int)>& layer) {
  const ModelConfig& m = c.config;
  const Val table =
      weight(c, "model.embed_tokens", m.vocab_size, m.hidden_size, kByVocabulary);  // (V, D)
  Val x = c.b.embedding(table, c.batch.input_ids);                                  // (T, D)
  place_residual(c, x);
  for (int i = 0; i < m.num_hidden_layers; ++i) {
    const auto scope = c.b.scope("layers", i);
    x = layer(x, i);
  }
  x = norm(c, "model.norm", x);
  const Val head = m.tie_word_embeddings ? table
                                         : weight(c, "lm_head", m.vocab_size, m.hidden_size,
                                                  kByVocabulary);  // (V, D)
  return {x, head, c.routers};
}

}  // namespace caravan
