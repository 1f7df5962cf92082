// Reading config.json, and the canonical form of a model; writing is in hf_config_writer.cpp.
#include "models/hf_config.h"

#include <algorithm>
#include <cmath>

#include "models/hf_known_keys.h"
#include "runtime/error.h"
#include "runtime/json.h"

namespace caravan {
namespace {

// As in a configuration of ours: far above what exists, and no product of them overflows.
constexpr IntegerRange kLayers = {1, 10'000}, kHeads = {1, 65'536}, kWidth = {1, 1 << 22};
constexpr IntegerRange kPositions = {1, int64_t{1} << 40}, kIds = {0, INT32_MAX};
constexpr size_t kMaxLayers = 10'000;
constexpr RealRange kPositive = {1e-30, 1e30};
constexpr size_t kMaxConfigDepth = 32;  // vision_config and quantization_config have a few levels

struct RopeKeys {
  double theta = 0;
  std::optional<RopeScaling> scaling;
  bool operator==(const RopeKeys&) const = default;
};

// What the keys of a text model are read into.
struct HfConfigReader {
  JsonKeys& keys;
  std::span<const std::string> ignored_keys;
  HfConfig& config;
};

RopeScaling scaling_of(JsonKeys& dict) {
  return {.factor = dict.need_real("factor", kPositive),
          .low_freq_factor = dict.need_real("low_freq_factor", kPositive),
          .high_freq_factor = dict.need_real("high_freq_factor", kPositive),
          .original_max_position_embeddings =
              dict.need_integer("original_max_position_embeddings", kPositions)};
}

// {"rope_type": "llama3", ...}; versions 5 have rope_theta in it, too.
RopeKeys rope_of(JsonKeys dict, double theta, std::span<const std::string> ignored_keys) {
  RopeKeys rope{.theta = dict.real("rope_theta", kPositive).value_or(theta), .scaling = {}};
  const auto type = dict.text("rope_type"), old_type = dict.text("type");
  if (type && old_type && *type != *old_type) dict.refuse("type", "the same as rope_type");
  const std::string name = type.value_or(old_type.value_or("default"));
  if (name == "llama3") {
    rope.scaling = scaling_of(dict);
  } else if (name != "default") {
    dict.refuse(type ? "rope_type" : "type", "default or llama3: others are not supported");
  }
  const char* const part = "partial_rotary_factor";
  if (dict.real(part).value_or(1) != 1) dict.refuse(part, "1: rope turns whole heads");
  expect_no_more(dict, ignored_keys);
  return rope;
}

// Version 4: rope_theta and rope_scaling. Version 5: rope_parameters. Both must say the same.
void read_rope(HfConfigReader& r) {
  ModelConfig& m = r.config.model;
  const auto theta = r.keys.real("rope_theta", kPositive);
  const double theta_outside = theta.value_or(m.rope_theta);
  std::optional<RopeKeys> rope;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    auto dict = r.keys.object(key);
    if (!dict) continue;
    const RopeKeys found = rope_of(std::move(*dict), theta_outside, r.ignored_keys);
    if (theta && found.theta != *theta)
      r.keys.refuse("rope_theta", "the same as in the other keys");
    if (rope && *rope != found) r.keys.refuse(key, "the same as rope_scaling");
    rope = found;
  }
  m.rope_theta = rope ? rope->theta : theta_outside;
  if (rope) m.rope_scaling = rope->scaling;
}

void read_tokens(HfConfigReader& r) {
  HfConfig& c = r.config;
  c.bos = r.keys.integer("bos_token_id", kIds);
  const bool has_eos = r.keys.has("eos_token_id");
  if (!c.bos && !r.keys.is_null("bos_token_id")) c.bos = 1;  // defaults of both families
  // -1: the first files of Llama had it for "none".
  const auto pad = r.keys.integer("pad_token_id", {-1, kIds.max});
  if (pad && *pad >= 0) c.pad = pad;
  const auto eos = r.keys.take("eos_token_id");
  if (!eos) {
    if (!has_eos) c.eos = {2};
  } else if (eos->is_array()) {
    c.eos = *r.keys.integers("eos_token_id", kIds, 1000);
  } else {
    c.eos = {*r.keys.integer("eos_token_id", kIds)};
  }
}

// torch_dtype (version 4) or dtype (5).
std::string read_dtype(JsonKeys& keys) {
  const auto old = keys.text("torch_dtype"), now = keys.text("dtype");
  if (old && now && *old != *now) keys.refuse("dtype", "the same as torch_dtype");
  std::string dtype = now.value_or(old.value_or(""));
  if (dtype.starts_with("torch.")) dtype = dtype.substr(6);
  const char* const key = now ? "dtype" : "torch_dtype";
  for (const char* known : {"", "float32", "bfloat16", "float16"}) {
    if (dtype == known) return dtype;
  }
  keys.refuse(key, "float32, bfloat16 or float16");
}

// An absent key has its default; one that is null is derived from other sizes.
int64_t derived_size(JsonKeys& keys, const char* key, int64_t default_value) {
  const bool is_null = keys.is_null(key);
  return keys.integer(key, kHeads).value_or(is_null ? 0 : default_value);
}

// Defaults of both families are in model, where they are not those of a ModelConfig.
void read_sizes(HfConfigReader& r) {
  ModelConfig& m = r.config.model;
  const auto read = [&](const char* key, int64_t& value, IntegerRange range) {
    value = r.keys.integer(key, range).value_or(value);
  };
  read("vocab_size", m.vocab_size, {1, 1 << 24});
  read("hidden_size", m.hidden_size, {1, 1 << 20});
  read("intermediate_size", m.intermediate_size, kWidth);
  read("num_hidden_layers", m.num_hidden_layers, kLayers);
  read("num_attention_heads", m.num_attention_heads, kHeads);
  m.num_key_value_heads = derived_size(r.keys, "num_key_value_heads", m.num_key_value_heads);
  m.head_dim = derived_size(r.keys, "head_dim", m.head_dim);
  read("max_position_embeddings", m.max_position_embeddings, kPositions);
  m.initializer_range = r.keys.real("initializer_range", {0, 10}).value_or(m.initializer_range);
  m.rms_norm_eps = r.keys.real("rms_norm_eps", {1e-30, 1}).value_or(m.rms_norm_eps);
  m.tie_word_embeddings = r.keys.boolean("tie_word_embeddings").value_or(m.tie_word_embeddings);
  m.attention_bias = r.keys.boolean("attention_bias").value_or(m.attention_bias);
}

void read_layer_types(HfConfigReader& r) {
  const auto types = r.keys.texts("layer_types", kMaxLayers);
  for (const std::string& type : types.value_or(std::vector<std::string>{})) {
    const bool is_chunked = type == "chunked_attention";
    if (!is_chunked && type != "full_attention") {
      r.keys.refuse("layer_types", "a list of chunked_attention and full_attention");
    }
    r.config.model.layer_types.push_back(is_chunked ? LayerType::chunked_attention
                                                    : LayerType::full_attention);
  }
}

// A truth; the first files of Llama 4 say 4 for it.
bool temperature_tuning(JsonKeys& keys) {
  const char* const key = "attn_temperature_tuning";
  const auto value = keys.take(key);
  if (!value) return true;
  if (value->is_int64()) return *keys.integer(key, {0, 4}) != 0;
  return *keys.boolean(key);
}

void read_llama4(HfConfigReader& r) {
  ModelConfig& m = r.config.model;
  JsonKeys& keys = r.keys;
  m.num_local_experts = keys.integer("num_local_experts", {1, 65'536}).value_or(16);
  m.num_experts_per_tok = keys.integer("num_experts_per_tok", {1, 65'536}).value_or(1);
  m.intermediate_size_mlp = keys.integer("intermediate_size_mlp", {0, kWidth.max}).value_or(16384);
  m.interleave_moe_layer_step = keys.integer("interleave_moe_layer_step", kLayers).value_or(1);
  m.moe_layers = keys.integers("moe_layers", {0, kLayers.max}, kMaxLayers);
  m.no_rope_layers =
      keys.integers("no_rope_layers", {0, 1}, kMaxLayers).value_or(std::vector<int64_t>{});
  m.no_rope_layer_interval = keys.integer("no_rope_layer_interval", kLayers).value_or(4);
  // Absent: the default. null: all keys of the document are seen.
  const bool has_no_chunks = keys.is_null("attention_chunk_size");
  m.attention_chunk_size =
      keys.integer("attention_chunk_size", kPositions).value_or(has_no_chunks ? 0 : 8192);
  read_layer_types(r);
  m.use_qk_norm = keys.boolean("use_qk_norm").value_or(true);
  m.attn_temperature_tuning = temperature_tuning(keys);
  // An integer in transformers, in files also 8192.0.
  m.floor_scale = keys.real("floor_scale", {1, 1e15}).value_or(8192);
  if (m.floor_scale != std::floor(m.floor_scale)) keys.refuse("floor_scale", "an integer");
  m.attn_scale = keys.real("attn_scale", {0, 1e6}).value_or(0.1);
}

// Of transformers where a file does not say; ours differ, as they are for new models.
ModelConfig llama_defaults() {
  ModelConfig m;
  m.vocab_size = 32000, m.hidden_size = 4096, m.intermediate_size = 11008;
  m.num_hidden_layers = 32, m.num_attention_heads = 32;
  m.rms_norm_eps = 1e-6;
  return m;
}

ModelConfig llama4_defaults() {
  ModelConfig m = default_config(ModelFamily::llama4_text);
  m.vocab_size = 202048, m.hidden_size = 5120, m.intermediate_size = 8192;
  m.num_hidden_layers = 48, m.num_attention_heads = 40;
  m.num_key_value_heads = 8, m.head_dim = 128;
  return m;
}

// A classifier has the same model_type and a head that is no language model's.
void expect_class(JsonKeys& keys, const std::string& name, const std::string& base) {
  const auto classes = keys.texts("architectures", 16);
  if (!classes || *classes == std::vector{name} || *classes == std::vector{base}) return;
  keys.refuse("architectures", absl::StrFormat("[\"%s\"]: only language models are read", name));
}

void read_text_model(HfConfigReader& r, const std::string& type) {
  ModelConfig& m = r.config.model;
  m = type == "llama" ? llama_defaults() : llama4_defaults();
  read_sizes(r);
  read_rope(r);
  read_tokens(r);
  if (type == "llama") {
    m.mlp_bias = r.keys.boolean("mlp_bias").value_or(false);
  } else {
    read_llama4(r);
  }
  take_known_keys(r.keys);
  expect_no_more(r.keys, r.ignored_keys);
}

// What stands around text_config and vision_config. Ids of tokens are only read in text_config, so
// one that is nowhere else is an error.
void read_multimodal(HfConfigReader& outer, const std::string& type) {
  JsonKeys& keys = outer.keys;
  HfConfig& config = outer.config;
  expect_class(keys, "Llama4ForConditionalGeneration", "Llama4Model");
  for (const char* key : {"vision_config", "boi_token_index", "eoi_token_index",
                          "image_token_index", "boi_token_id", "eoi_token_id", "image_token_id"}) {
    keys.take(key);  // of images
  }
  config.tensor_prefix = "language_model.";
  const bool is_tied = keys.boolean("tie_word_embeddings").value_or(false);
  const std::string outer_dtype = read_dtype(keys);
  auto text = keys.object("text_config");
  if (!text) keys.refuse("text_config", "an object: it describes the text model");
  if (text->text("model_type").value_or(type + "_text") != type + "_text") {
    text->refuse("model_type", "llama4_text");
  }
  expect_class(*text, "Llama4ForCausalLM", "Llama4TextModel");
  config.torch_dtype = read_dtype(*text);
  if (config.torch_dtype.empty()) config.torch_dtype = outer_dtype;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (!keys.take(key) || text->has(key)) continue;
    keys.refuse(key, "in text_config");
  }
  HfConfigReader inner{*text, outer.ignored_keys, config};
  read_text_model(inner, type + "_text");
  if (is_tied != config.model.tie_word_embeddings) {
    keys.refuse("tie_word_embeddings", "the same as in text_config");
  }
  take_known_keys(keys);
  expect_no_more(keys, outer.ignored_keys);
}

void read_model(HfConfigReader& r) {
  const std::string type = r.keys.text("model_type").value_or("");
  if (type == "llama4") return read_multimodal(r, type);
  if (type != "llama" && type != "llama4_text") {
    r.keys.refuse("model_type", "llama, llama4_text or llama4: other models are not supported");
  }
  const bool is_llama = type == "llama";
  expect_class(r.keys, is_llama ? "LlamaForCausalLM" : "Llama4ForCausalLM",
               is_llama ? "LlamaModel" : "Llama4TextModel");
  r.config.torch_dtype = read_dtype(r.keys);
  read_text_model(r, type);
}

std::vector<int64_t> layers_where(const ModelConfig& m, bool (*holds)(const ModelConfig&, int64_t),
                                  int64_t first = 0) {
  std::vector<int64_t> layers;
  for (int64_t layer = first; layer < m.num_hidden_layers; ++layer) {
    if (holds(m, layer)) layers.push_back(layer);
  }
  return layers;
}

// The step that gives the same layers, if one does; else the list. transformers 5 writes the list
// in any case, and it must not look like another model.
void shorten_moe_layers(ModelConfig& m) {
  const std::vector<int64_t> layers = layers_where(m, has_experts);
  m.moe_layers = layers;
  m.interleave_moe_layer_step = 1;
  if (layers.empty()) return;
  ModelConfig by_step = m;
  by_step.moe_layers.reset();
  by_step.interleave_moe_layer_step = layers.front() + 1;
  if (layers_where(by_step, has_experts) == layers) m = by_step;
}

// As moe_layers. The usual interval is kept where it gives the layers: others would, too, in models
// of few layers.
void shorten_rope_layers(ModelConfig& m) {
  const std::vector<int64_t> layers = layers_where(m, has_rope);
  ModelConfig by_interval = m;
  by_interval.no_rope_layers.clear();
  m.no_rope_layers.clear();
  int64_t first_without = 0;
  for (int64_t layer = 0; layer < m.num_hidden_layers; ++layer) {
    const bool turns = std::ranges::binary_search(layers, layer);
    m.no_rope_layers.push_back(turns ? 1 : 0);
    if (turns && first_without == layer) ++first_without;
  }
  const int64_t usual = default_config(ModelFamily::llama4_text).no_rope_layer_interval;
  for (const int64_t interval : {usual, first_without + 1}) {
    by_interval.no_rope_layer_interval = interval;
    if (layers_where(by_interval, has_rope) != layers) continue;
    m = by_interval;
    return;
  }
  m.no_rope_layer_interval = usual;
}

// Files of models without chunks have a size of them, too, since transformers asks for one.
void shorten_chunks(ModelConfig& m) {
  const std::vector<int64_t> layers = layers_where(m, is_chunked);
  if (layers.empty()) {
    m.attention_chunk_size = 0;
    m.layer_types.clear();
    return;
  }
  ModelConfig by_rope = m;
  by_rope.layer_types.clear();
  if (layers_where(by_rope, is_chunked) == layers) m = by_rope;
}

// Only what the family has; the rest is as in an empty config.
void clear_llama4(ModelConfig& m) {
  const ModelConfig none;
  m.no_rope_layers = none.no_rope_layers;
  m.no_rope_layer_interval = none.no_rope_layer_interval;
  m.attention_chunk_size = none.attention_chunk_size;
  m.layer_types = none.layer_types;
  m.use_qk_norm = none.use_qk_norm;
  m.attn_temperature_tuning = none.attn_temperature_tuning;
  m.floor_scale = none.floor_scale;
  m.attn_scale = none.attn_scale;
  if (m.num_local_experts > 0) return;
  m.num_experts_per_tok = none.num_experts_per_tok;
  m.intermediate_size_mlp = none.intermediate_size_mlp;
  m.interleave_moe_layer_step = none.interleave_moe_layer_step;
  m.moe_layers = none.moe_layers;
}

}  // namespace

ModelConfig canonical(const ModelConfig& model) {
  ModelConfig m = with_derived_sizes(model);
  if (m.family == ModelFamily::llama) clear_llama4(m);
  if (m.num_local_experts > 0) {
    shorten_moe_layers(m);
    // Not used, but transformers wants a number.
    if (m.intermediate_size_mlp == 0) m.intermediate_size_mlp = m.intermediate_size;
  }
  if (m.family == ModelFamily::llama4_text) {
    shorten_rope_layers(m);
    shorten_chunks(m);
  }
  return m;
}

HfConfig read_hf_config(std::string_view json, const std::string& origin,
                        std::span<const std::string> ignored_keys) {
  const JsonText text(json, kMaxConfigDepth, origin, ExitCode::checkpoint);
  JsonKeys keys = text.keys();
  HfConfig config;
  HfConfigReader reader{keys, ignored_keys, config};
  read_model(reader);
  try {  // sizes that do not fit each other are the file's mistake here, not the configuration's
    config.model = canonical(config.model);
  } catch (const Error& error) {
    throw checkpoint_error(absl::StrFormat("%s: %s", origin, error.what()));
  }
  return config;
}

HfConfig read_hf_ids(std::string_view json, const std::string& origin) {
  const JsonText text(json, kMaxConfigDepth, origin, ExitCode::checkpoint);
  JsonKeys outer = text.keys();
  std::optional<JsonKeys> inner = outer.object("text_config");
  HfConfig config;
  HfConfigReader reader{inner ? *inner : outer, {}, config};
  config.torch_dtype = read_dtype(reader.keys);
  if (config.torch_dtype.empty() && inner) config.torch_dtype = read_dtype(outer);
  read_tokens(reader);
  return config;
}

std::vector<std::string> training_options(std::string_view json, const std::string& origin) {
  const JsonText text(json, kMaxConfigDepth, origin, ExitCode::checkpoint);
  JsonKeys outer = text.keys();
  std::optional<JsonKeys> inner = outer.object("text_config");
  JsonKeys& keys = inner ? *inner : outer;
  std::vector<std::string> names;
  for (const char* key : {"attention_dropout", "router_jitter_noise"}) {
    if (keys.real(key).value_or(0) != 0) names.push_back(key);
  }
  return names;
}

}  // namespace caravan
