#include "models/config.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan {
namespace {

template <typename... Args>
void require(bool ok, const absl::FormatSpec<Args...>& format, const Args&... args) {
  if (!ok) throw config_error("model: " + absl::StrFormat(format, args...));
}

// The multiple of `unit` that is nearest to `value`, and at least `unit`: the fix in a message.
int64_t nearest_multiple(int64_t value, int64_t unit) {
  return std::max<int64_t>(1, (value + unit / 2) / unit) * unit;
}

void validate_sizes(const ModelConfig& c) {
  require(c.vocab_size >= 0, "vocab_size is %d; it must be positive", c.vocab_size);
  require(c.hidden_size > 0, "hidden_size is %d; it must be positive", c.hidden_size);
  require(c.intermediate_size > 0, "intermediate_size is %d; it must be positive",
          c.intermediate_size);
  require(c.num_hidden_layers > 0, "num_hidden_layers is %d; it must be positive",
          c.num_hidden_layers);
  require(c.num_attention_heads > 0, "num_attention_heads is %d; it must be positive",
          c.num_attention_heads);
  require(c.max_position_embeddings > 0, "max_position_embeddings is %d; it must be positive",
          c.max_position_embeddings);
}

void validate_heads(const ModelConfig& c) {
  const int64_t heads = c.num_attention_heads;
  const int64_t kv_heads = c.num_key_value_heads == 0 ? heads : c.num_key_value_heads;
  require(kv_heads > 0 && heads % kv_heads == 0,
          "num_attention_heads %d is not divisible by num_key_value_heads %d; "
          "every key-value head serves the same number of heads, so use a divisor of %d",
          heads, kv_heads, heads);
  require(c.head_dim != 0 || c.hidden_size % heads == 0,
          "hidden_size %d is not divisible by num_attention_heads %d; "
          "use hidden_size %d, or give head_dim",
          c.hidden_size, heads, nearest_multiple(c.hidden_size, heads));
  const int64_t head_dim = c.head_dim == 0 ? c.hidden_size / heads : c.head_dim;
  require(head_dim > 0 && head_dim % 2 == 0,
          "head_dim %d is odd (hidden_size %d, num_attention_heads %d); "
          "rope turns pairs of channels, so it must be even",
          head_dim, c.hidden_size, heads);
}

void validate_rope(const ModelConfig& c) {
  require(c.rope_theta > 0, "rope_theta is %g; it must be positive", c.rope_theta);
  if (!c.rope_scaling) return;
  const RopeScaling& r = *c.rope_scaling;
  require(r.factor >= 1, "rope_scaling.factor is %g; it must be at least 1", r.factor);
  require(r.low_freq_factor > 0 && r.high_freq_factor >= r.low_freq_factor,
          "rope_scaling: low_freq_factor %g and high_freq_factor %g; "
          "they must be positive, and high at least low",
          r.low_freq_factor, r.high_freq_factor);
  require(r.original_max_position_embeddings > 0,
          "rope_scaling.original_max_position_embeddings is %d; it must be positive",
          r.original_max_position_embeddings);
}

void validate_moe_layers(const ModelConfig& c) {
  const std::vector<int64_t> layers = c.moe_layers.value_or(std::vector<int64_t>{});
  for (const int64_t layer : layers) {
    require(layer >= 0 && layer < c.num_hidden_layers,
            "moe_layers has %d, but the %d layers are 0 to %d; use those", layer,
            c.num_hidden_layers, c.num_hidden_layers - 1);
    require(std::ranges::count(layers, layer) == 1, "moe_layers has %d twice; remove one", layer);
  }
}

void validate_experts(const ModelConfig& c) {
  require(c.num_experts_per_tok >= 1 && c.num_experts_per_tok <= c.num_local_experts,
          "num_experts_per_tok is %d; it must be from 1 to num_local_experts %d",
          c.num_experts_per_tok, c.num_local_experts);
  require(c.interleave_moe_layer_step > 0, "interleave_moe_layer_step is %d; it must be positive",
          c.interleave_moe_layer_step);
  validate_moe_layers(c);
  int64_t layer = 0;
  while (layer < c.num_hidden_layers && has_experts(c, layer)) ++layer;
  require(layer == c.num_hidden_layers || c.intermediate_size_mlp > 0,
          "layer %d has no experts and intermediate_size_mlp, its width, is not given; give it "
          "(intermediate_size is that of experts)",
          layer);
}

// One entry for every layer, or none at all.
template <typename Entry>
void validate_per_layer(const char* key, const std::vector<Entry>& entries, const ModelConfig& c) {
  const auto count = static_cast<int64_t>(entries.size());
  require(count == 0 || count == c.num_hidden_layers,
          "%s has %d entries, but there are %d layers; give one for each, or remove it", key, count,
          c.num_hidden_layers);
}

void validate_llama4(const ModelConfig& c) {
  require(c.num_local_experts > 0,
          "num_local_experts is %d; it must be positive (a model without experts: moe_layers [])",
          c.num_local_experts);
  require(!c.mlp_bias, "mlp_bias is true, but family llama4_text has none; use mlp_bias false");
  validate_per_layer("no_rope_layers", c.no_rope_layers, c);
  for (const int64_t rope : c.no_rope_layers) {
    require(rope == 0 || rope == 1, "no_rope_layers has %d; use 1 (rope) or 0 (none)", rope);
  }
  validate_per_layer("layer_types", c.layer_types, c);
  const bool is_chunked = std::ranges::count(c.layer_types, LayerType::chunked_attention) > 0;
  require(c.attention_chunk_size > 0 || !is_chunked,
          "layer_types has chunked_attention, but attention_chunk_size is null; give it, or use "
          "full_attention");
  require(c.attention_chunk_size >= 0, "attention_chunk_size is %d; it must not be negative",
          c.attention_chunk_size);
  require(c.no_rope_layer_interval > 0, "no_rope_layer_interval is %d; it must be positive",
          c.no_rope_layer_interval);
  require(c.floor_scale > 0 && c.attn_scale >= 0,
          "floor_scale is %g and attn_scale %g; the first must be positive, the second not "
          "negative",
          c.floor_scale, c.attn_scale);
}

}  // namespace

std::string_view name(ModelFamily family) {
  return family == ModelFamily::llama ? "llama" : "llama4_text";
}

ModelConfig default_config(ModelFamily family) {
  ModelConfig config;
  if (family == ModelFamily::llama) return config;
  config.family = family;
  config.max_position_embeddings = 131072;
  config.rope_theta = 500000;
  config.num_local_experts = 16;
  return config;
}

bool has_experts(const ModelConfig& config, int64_t layer) {
  if (config.num_local_experts == 0) return false;
  if (config.moe_layers) return std::ranges::count(*config.moe_layers, layer) > 0;
  return (layer + 1) % config.interleave_moe_layer_step == 0;
}

bool has_rope(const ModelConfig& config, int64_t layer) {
  if (config.family == ModelFamily::llama) return true;
  if (!config.no_rope_layers.empty()) return config.no_rope_layers[static_cast<size_t>(layer)] == 1;
  return (layer + 1) % config.no_rope_layer_interval != 0;
}

bool is_chunked(const ModelConfig& config, int64_t layer) {
  if (config.family == ModelFamily::llama || config.attention_chunk_size == 0) return false;
  if (config.layer_types.empty()) return has_rope(config, layer);
  return config.layer_types[static_cast<size_t>(layer)] == LayerType::chunked_attention;
}

int64_t dense_width(const ModelConfig& config) {
  return config.num_local_experts > 0 ? config.intermediate_size_mlp : config.intermediate_size;
}

void validate(const ModelConfig& config) {
  validate_sizes(config);
  validate_heads(config);
  validate_rope(config);
  if (config.num_local_experts > 0) validate_experts(config);
  if (config.family == ModelFamily::llama4_text) validate_llama4(config);
  require(config.initializer_range >= 0, "initializer_range is %g; it must not be negative",
          config.initializer_range);
  require(config.rms_norm_eps > 0, "rms_norm_eps is %g; it must be positive", config.rms_norm_eps);
}

ModelConfig with_derived_sizes(const ModelConfig& config) {
  validate(config);
  ModelConfig derived = config;
  if (derived.num_key_value_heads == 0) derived.num_key_value_heads = config.num_attention_heads;
  if (derived.head_dim == 0) derived.head_dim = config.hidden_size / config.num_attention_heads;
  return derived;
}

}  // namespace caravan
