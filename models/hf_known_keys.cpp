#include "models/hf_known_keys.h"

#include <algorithm>
#include <array>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr std::array kWithoutEffect = {
    // Where the file comes from.
    "_name_or_path", "_commit_hash", "transformers_version", "caravan_version",
    // How a program computes, and what it hands out beside the logits.
    "use_cache", "output_attentions", "output_hidden_states", "output_router_logits", "return_dict",
    "return_dict_in_generate", "output_scores", "torchscript", "use_bfloat16", "tf_legacy_loss",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation",
    "cache_implementation", "_experts_implementation",
    // Training: transformers reads the first only there, the others not at all for these families.
    "attention_dropout", "router_aux_loss_coef", "router_jitter_noise",
    // Other tasks than language modelling, tokenizers.
    "id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params",
    "tokenizer_class", "prefix", "decoder_start_token_id", "sep_token_id",
    // Generation: what is done with logits.
    "max_length", "min_length", "max_new_tokens", "do_sample", "early_stopping", "num_beams",
    "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p",
    "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids", "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens"};

// These have no effect as long as they say what is so anyway; all of them are what transformers
// writes as defaults.
struct Fixed {
  std::string_view key;
  std::string_view value;  // as JSON
  std::string_view why;
};
constexpr std::array<Fixed, 11> kFixed = {{
    {"hidden_act", "\"silu\"", "the MLPs here have no other"},
    {"pretraining_tp", "1", "others round differently"},
    {"is_decoder", "false", "the models here are decoders alone"},
    {"is_encoder_decoder", "false", "the models here are decoders alone"},
    {"add_cross_attention", "false", "the models here are decoders alone"},
    {"tie_encoder_decoder", "false", "the models here are decoders alone"},
    {"chunk_size_feed_forward", "0", "MLPs are computed whole"},
    {"pruned_heads", "{}", "all heads are there"},
    {"rope_interleaved", "false", "the family says how rope pairs channels"},
    {"partial_rotary_factor", "1.0", "rope turns whole heads"},
    {"for_llm_compressor", "false", "experts are stored as one tensor"},
}};

}  // namespace

void take_known_keys(JsonKeys& keys) {
  for (const char* key : kWithoutEffect) keys.take(key);
  for (const Fixed& fixed : kFixed) {
    const auto value = keys.take(fixed.key);
    if (!value) continue;
    // By value: 1 and 1.0 are the same number.
    double number = 0, wanted = 0;
    simdjson::dom::parser parser;
    const auto expected = parser.parse(fixed.value.data(), fixed.value.size());
    const bool same_number = value->get(number) == simdjson::SUCCESS &&
                             expected.get(wanted) == simdjson::SUCCESS && number == wanted;
    if (same_number || simdjson::minify(*value) == fixed.value) continue;
    keys.fail(fixed.key, absl::StrFormat("%s: %s", fixed.value, fixed.why));
  }
}

void expect_no_more(const JsonKeys& keys, std::span<const std::string> ignored_keys) {
  for (const std::string& key : keys.rest()) {
    const std::string path = keys.path() + key;
    if (std::ranges::count(ignored_keys, path) > 0) continue;
    throw checkpoint_error(absl::StrFormat(
        "%s, which this program does not know: pass --ignore-key %s if it does not change what the "
        "model computes",
        keys.description(key), in_quotes(path)));
  }
}

}  // namespace caravan
