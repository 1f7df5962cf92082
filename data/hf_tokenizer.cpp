#include "data/hf_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/sentencepiece_model.h"
#include "data/sentencepiece_spec.h"
#include "data/text_map.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSpaceMark = "\xE2\x96\x81";

[[noreturn]] void refuse(const SentencePieceTokenizer& tokenizer, const std::string& what) {
  throw data_error(
      absl::StrFormat("%s: cannot be exported: %s; vocabularies of `caravan data build` can",
                      tokenizer.path(), what));
}

void check_exportable(const SentencePieceTokenizer& tokenizer) {
  const SentencePieceSpec spec = read_sentencepiece_spec(tokenizer.serialized());
  if (spec.model_type != SentencePieceSpec::kBpe) refuse(tokenizer, "it is no BPE");
  if (!spec.byte_fallback) refuse(tokenizer, "it has no bytes for unknown characters");
  if (spec.has_user_defined || spec.has_unused) {
    refuse(tokenizer, "it has user-defined or unused pieces");
  }
  if (spec.normalizes || spec.add_dummy_prefix || spec.remove_extra_whitespaces ||
      !spec.escape_whitespaces || spec.treat_whitespace_as_suffix) {
    refuse(tokenizer, "it changes text before it is encoded");
  }
}

bool is_character_start(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; }

size_t num_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), is_character_start));
}

// All merges in the order of ranks: the scores fall from one piece to the next.
class Merges {
 public:
  explicit Merges(const SentencePieceTokenizer& tokenizer) : tokenizer_(tokenizer) {
    const SentencePieceModel& model = tokenizer.model();
    for (int32_t id = 0; id < model.vocab_size(); ++id) {
      if (model.kind(id) == PieceKind::normal) pieces_.emplace(model.piece(id), id);
    }
    for (const auto& [piece, id] : pieces_) {
      if (num_characters(piece) > 1) ids_.push_back(id);
    }
    std::sort(ids_.begin(), ids_.end(), [&](int32_t a, int32_t b) {
      return std::pair(-model.score(a), a) < std::pair(-model.score(b), b);
    });
    for (size_t i = 1; i < ids_.size(); ++i) {
      if (model.score(ids_[i - 1]) == model.score(ids_[i])) {
        refuse(tokenizer, "two of its pieces have the same score");
      }
    }
  }

  Json list() const {
    Json merges = Json::array();
    for (const int32_t id : ids_) {
      const std::string piece = tokenizer_.piece(id);
      for (const size_t left : splits(piece)) {
        merges.push_back(Json::array({piece.substr(0, left), piece.substr(left)}));
      }
    }
    return merges;
  }

 private:
  // The lengths in bytes of the left parts, longest first. Symbols of a text are its characters and
  // pieces made of them; a character without an entry could be a part of a merge too, but not of
  // one that can be written down.
  std::vector<size_t> splits(const std::string& piece) const {
    std::vector<size_t> lefts;
    for (size_t at = 0; at < piece.size(); ++at) {
      if (!is_character_start(piece[at])) continue;
      size_t end = at + 1;
      while (end < piece.size() && !is_character_start(piece[end])) ++end;
      if (!pieces_.contains(piece.substr(at, end - at))) {
        refuse(tokenizer_, absl::StrFormat("piece '%s' has a character that is no piece", piece));
      }
      const bool both =
          at > 0 && pieces_.contains(piece.substr(0, at)) && pieces_.contains(piece.substr(at));
      if (both) lefts.insert(lefts.begin(), at);
    }
    return lefts;
  }

  const SentencePieceTokenizer& tokenizer_;
  TextMap<std::string, int32_t> pieces_;
  std::vector<int32_t> ids_;  // of pieces of two characters and more, by falling score
};

Json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

Json special_token(const std::string& content) {
  return {{"content", content}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false},    {"normalized", false},  {"special", true}};
}

Json added_tokens(const SentencePieceTokenizer& tokenizer) {
  Json tokens = Json::array();
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id)) continue;
    Json token = {{"id", id}};
    token.update(special_token(tokenizer.piece(id)));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

Json post_processor(const SentencePieceTokenizer& tokenizer) {
  if (tokenizer.bos_id() < 0) return nullptr;
  const std::string bos = tokenizer.piece(tokenizer.bos_id());
  const auto special = [&](int type) -> Json {
    return {{"SpecialToken", {{"id", bos}, {"type_id", type}}}};
  };
  const auto sequence = [](const char* id, int type) -> Json {
    return {{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({special(0), sequence("A", 0)})},
          {"pair", Json::array({special(0), sequence("A", 0), special(1), sequence("B", 1)})},
          {"special_tokens",
           {{bos,
             {{"id", bos},
              {"ids", Json::array({tokenizer.bos_id()})},
              {"tokens", Json::array({bos})}}}}}};
}

std::string unknown_piece(const SentencePieceTokenizer& tokenizer) {
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.model().kind(id) == PieceKind::unknown) return tokenizer.piece(id);
  }
  refuse(tokenizer, "it has no token for the unknown");
}

Json tokenizer_json(const SentencePieceTokenizer& tokenizer) {
  Json vocab = Json::object();
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) vocab[tokenizer.piece(id)] = id;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(tokenizer)},
          {"normalizer", replace(" ", kSpaceMark)},
          {"pre_tokenizer", nullptr},
          {"post_processor", post_processor(tokenizer)},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders", Json::array({replace(kSpaceMark, " "), Json{{"type", "ByteFallback"}},
                                      Json{{"type", "Fuse"}}})}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", unknown_piece(tokenizer)},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false},
            {"vocab", std::move(vocab)},
            {"merges", Merges(tokenizer).list()}}}};
}

// "bos_token": "<s>" and so on.
Json token_names(const SentencePieceTokenizer& tokenizer) {
  Json names = {{"unk_token", unknown_piece(tokenizer)}};
  if (tokenizer.bos_id() >= 0) names["bos_token"] = tokenizer.piece(tokenizer.bos_id());
  if (tokenizer.eos_id() >= 0) names["eos_token"] = tokenizer.piece(tokenizer.eos_id());
  return names;
}

Json tokenizer_config(const SentencePieceTokenizer& tokenizer) {
  Json config = token_names(tokenizer);
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  Json decoder = Json::object();
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id)) continue;
    decoder[std::to_string(id)] = special_token(tokenizer.piece(id));
  }
  config["added_tokens_decoder"] = std::move(decoder);
  return config;
}

}  // namespace

std::map<std::string, std::string> hf_tokenizer_files(const SentencePieceTokenizer& tokenizer) {
  check_exportable(tokenizer);
  const auto text = [](const Json& json, int indent) { return json.dump(indent) + "\n"; };
  return {{"tokenizer.json", text(tokenizer_json(tokenizer), -1)},
          {"tokenizer_config.json", text(tokenizer_config(tokenizer), 2)},
          {"special_tokens_map.json", text(token_names(tokenizer), 2)},
          {"tokenizer.model", tokenizer.serialized()}};
}

}  // namespace caravan
