// Reads a tokenizer.json that is a byte-level BPE. Every key is looked at: what would change the
// result and is not known here is an error that names file and key; nothing is skipped.
// Knows nothing of how text is encoded.
//
// Errors: data_error, one line. Limits: 256 MiB of file, 64 levels, 4 Mi entries, ids below 8 Mi.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace caravan {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false;  // only where no letter or digit stands beside it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;
  bool normalized = true;  // is looked for after those that are not
  bool special = false;
};

enum class PretokenizerKind { split, prefix_space };

// Steps run one after the other, each on every piece that the step before has left.
struct PretokenizerStep {
  PretokenizerKind kind = PretokenizerKind::split;
  std::string pattern;   // of a split: a regular expression as Oniguruma (Ruby) reads it
  bool removes = false;  // what matches is dropped, not a piece of its own
  std::string where;     // "pre_tokenizer.pretokenizers[0]", for messages
};

struct TokenizerJson {
  std::vector<std::string> names;                   // by id; "" where there is none
  std::vector<std::pair<int32_t, int32_t>> merges;  // by rank
  std::vector<int32_t> merged;                      // by rank: the id that it gives
  bool ignore_merges = false;  // what is an entry as a whole is not taken apart
  std::vector<AddedToken> added_tokens;
  std::vector<PretokenizerStep> steps;
  std::vector<int32_t> prefix_ids;  // of a single sequence
  std::vector<int32_t> suffix_ids;
};

// `path` is for messages.
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& path);

// Why the file cannot be a byte-level BPE (one line, with the file), or "": then what it has that
// is not supported is an error of parse_tokenizer_json.
std::string why_not_byte_level(const std::string& path);

// What the files beside a tokenizer.json say: bos, eos and the like by name, "" where none does;
// and keys of tokenizer_config.json that change ids. do_lower_case is refused. split_special_tokens
// is what Tokenizer::encode does anyway, and legacy matters to SentencePiece alone.
struct TokenNames {
  std::string bos;
  std::string eos;
  int32_t bos_id = -1;  // of generation_config.json or config.json, which have numbers only
  int32_t eos_id = -1;
  std::optional<bool> adds_bos = {};  // add_bos_token, and so on
  std::optional<bool> adds_eos = {};
  std::optional<bool> adds_prefix_space = {};
  bool is_llama = false;  // tokenizer_class
};
TokenNames read_token_names(const std::string& folder);

}  // namespace caravan
