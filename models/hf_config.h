// config.json of Hugging Face's transformers: which model it says, and writing one. Families llama
// and llama4_text, and the text part of llama4; as versions 4 and 5 of transformers write it.
//
// Every key is looked at. One that is neither supported nor known to be without effect on what the
// model computes is an error that names it, never passed over. No state, any thread. Errors of
// reading: checkpoint errors; of writing: config errors.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "runtime/types.h"

namespace caravan {

inline constexpr const char* kHfConfigName = "config.json";
inline constexpr int64_t kMaxHfConfigBytes = int64_t{1} << 20;

struct HfConfig {
  ModelConfig model;           // with derived sizes, in the form of canonical()
  std::string tensor_prefix;   // of all tensors of the text model; "language_model." in a llama4
  std::optional<int64_t> bos;  // ids of tokens
  std::optional<int64_t> pad;
  std::vector<int64_t> eos;
  std::string torch_dtype;  // of the weights: "float32", "bfloat16", "float16"; "" when not said

  bool operator==(const HfConfig&) const = default;
};

// The same model in the shortest form: lists by layer that the defaults give are left out, chunks
// that no layer uses too, and what the family does not have is as default_config says. Two configs
// of the same model are equal in this form. Fills in derived sizes.
ModelConfig canonical(const ModelConfig& model);

// `origin` (a path) opens the messages. `ignored_keys`: keys that this program does not know and
// that the user takes to be harmless, with their path ("text_config.some_key"). A known key is read
// also when it is among them.
HfConfig read_hf_config(std::string_view json, const std::string& origin,
                        std::span<const std::string> ignored_keys = {});

// Only the ids of tokens and the dtype, of a config.json that has been read before; the model is
// left empty.
HfConfig read_hf_ids(std::string_view json, const std::string& origin);

// Keys that say how transformers would train the model and that are not off, dropout for one: they
// change nothing of what it computes, and nothing here follows them.
std::vector<std::string> training_options(std::string_view json, const std::string& origin);

// The text of a config.json with the keys of transformers 4, which version 5 reads too, all of them
// explicit, for the class without a vision part. `dtype` is that of the weights beside it (f32 or
// bf16). read_hf_config gives the same config back, but for prefix and torch_dtype. A config error
// when transformers has no such model.
std::string write_hf_config(const HfConfig& config, DType dtype, const std::string& tool_version);
// The text of the generation_config.json beside it.
std::string write_generation_config(const HfConfig& config);

}  // namespace caravan
