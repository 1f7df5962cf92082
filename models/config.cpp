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

}  // namespace

void validate(const ModelConfig& config) {
  validate_sizes(config);
  validate_heads(config);
  validate_rope(config);
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
