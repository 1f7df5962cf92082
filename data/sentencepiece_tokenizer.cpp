#include "data/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <unordered_map>

#include "data/added_tokens.h"
#include "data/durable_file.h"
#include "data/sentencepiece_model.h"
#include "data/utf8.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

constexpr size_t kMaxModelBytes = size_t{256} << 20;
constexpr int kFixedTokens = 256 + 3;  // bytes; unknown, bos and eos
constexpr size_t kPieceBytes = size_t{256} << 10;
// SentencePiece writes a space as U+2581, so that a U+2581 of the text would come back as a space.
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";
constexpr std::string_view kUnknownText = " \xE2\x81\x87 ";  // the library's text of <unk>
constexpr std::array<std::string_view, 3> kCompanions = {
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"};
constexpr std::array<std::string_view, 1> kSameInJson = {"tokenizer.json"};

char byte_of(const std::string& name) {  // of a byte token, "<0x41>"
  return static_cast<char>(std::strtol(name.c_str() + 3, nullptr, 16));
}

std::string with_spaces(std::string_view name) {
  std::string text;
  while (true) {
    const size_t mark = name.find(kSpaceMark);
    text += name.substr(0, mark);
    if (mark == std::string_view::npos) return text;
    text += ' ';
    name.remove_prefix(mark + kSpaceMark.size());
  }
}

// Why each is set: whitespace is kept exactly and its runs may be tokens of their own (text with
// indentation costs a third less), digits stay apart (numbers are read digit by digit, as Llama
// does), everything unknown becomes bytes.
std::unordered_map<std::string, std::string> training_options(int vocab_size) {
  return {{"model_type", "bpe"},
          {"vocab_size", absl::StrFormat("%d", vocab_size)},
          {"byte_fallback", "true"},
          {"normalization_rule_name", "identity"},
          {"add_dummy_prefix", "false"},
          {"remove_extra_whitespaces", "false"},
          {"allow_whitespace_only_pieces", "true"},
          {"split_digits", "true"},
          {"character_coverage", "0.9999"},
          {"max_sentence_length", "16777216"},
          {"num_threads", "2"},
          {"minloglevel", "4"}};
}

// The number after the last `before` in a reason of SentencePiece that speaks of `problem`; else 0.
int number_in(const std::string& reason, const char* problem, std::string_view before) {
  const size_t at = reason.rfind(before);
  const bool found = reason.find(problem) != std::string::npos && at != std::string::npos;
  return found ? std::atoi(reason.c_str() + at + before.size()) : 0;
}

Error training_error(const std::string& reason, int vocab_size) {
  const int largest = number_in(reason, "Vocabulary size too high", "<= ");
  if (largest > 0) {
    return data_error(absl::StrFormat(
        "tokenizer: the text is too small for a vocabulary of %d; it allows at most %d: add text "
        "or pass --vocab-size %d",
        vocab_size, largest, largest));
  }
  const int needed = number_in(reason, "smaller than required_chars", " vs ");
  if (needed > kFixedTokens) {
    return data_error(absl::StrFormat(
        "tokenizer: the text has %d different characters, which with %d bytes and control tokens "
        "do not fit into a vocabulary of %d: pass --vocab-size %d or more",
        needed - kFixedTokens, kFixedTokens, vocab_size, needed));
  }
  return data_error("tokenizer: training failed: " + reason);
}

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const std::string& path, bool in_folder)
    : SentencePieceTokenizer(path, read_file(path, kMaxModelBytes, ExitCode::data)) {
  add_files(kCompanions);
  if (in_folder) add_files(kSameInJson);
}

SentencePieceTokenizer::SentencePieceTokenizer(const std::string& path, std::string serialized)
    : Tokenizer(path, serialized), serialized_(std::move(serialized)) {
  try {
    model_ = std::make_unique<SentencePieceModel>(serialized_);
  } catch (const std::runtime_error&) {
    throw data_error(path + ": is not a SentencePiece model (a file such as tokenizer.model)");
  }
  for (const char c : kSpaceMark) {
    space_mark_ids_.push_back(model_->byte_id(static_cast<uint8_t>(c)));
  }
  if (space_mark_ids_.front() < 0) space_mark_ids_.clear();
  std::vector<int32_t> probe;
  model_->encode("a", probe);
  adds_space_ = !probe.empty() && model_->piece(probe.front()).starts_with(kSpaceMark);
  if (bos_id() >= 0) prefix_ids_ = {bos_id()};
  read_tokens();
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

void SentencePieceTokenizer::read_tokens() {
  std::vector<AddedToken> special_tokens;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const PieceKind kind = model_->kind(id);
    const bool special = kind == PieceKind::control || kind == PieceKind::unknown;
    std::string name = model_->piece(id);
    if (special) {
      special_tokens.push_back({.id = id, .content = name, .normalized = false, .special = true});
    }
    is_special_.push_back(special);
    token_bytes_.push_back(special                   ? name
                           : kind == PieceKind::byte ? std::string(1, byte_of(name))
                                                     : with_spaces(name));
  }
  special_tokens_ = std::make_unique<AddedTokens>(std::move(special_tokens));
}

std::string_view SentencePieceTokenizer::token_bytes(int32_t id, SpecialTokens special) const {
  check_id(id);
  const auto at = static_cast<size_t>(id);
  if (!is_special_[at] || special == SpecialTokens::show) return token_bytes_[at];
  return model_->kind(id) == PieceKind::unknown ? kUnknownText : std::string_view();
}

void SentencePieceTokenizer::encode_piece(std::string_view text, std::vector<int32_t>& ids) const {
  if (space_mark_ids_.empty()) return model_->encode(text, ids);
  while (true) {
    const size_t mark = text.find(kSpaceMark);
    model_->encode(text.substr(0, mark), ids);
    if (mark == std::string_view::npos) return;
    ids.insert(ids.end(), space_mark_ids_.begin(), space_mark_ids_.end());
    text.remove_prefix(mark + kSpaceMark.size());
  }
}

// Long texts are encoded in pieces, cut before a line, so that memory does not grow with the text.
void SentencePieceTokenizer::encode_plain(std::string_view text, std::vector<int32_t>& ids) const {
  // A vocabulary that puts a space before every text would put one before every piece.
  if (adds_space_) return model_->encode(text, ids);
  while (!text.empty()) {
    const size_t size = line_cut(text, kPieceBytes);
    encode_piece(text.substr(0, size), ids);
    text.remove_prefix(size);
  }
}

void SentencePieceTokenizer::encode_valid(std::string_view text, SpecialTokens special,
                                          std::vector<int32_t>& ids) const {
  special_tokens_->split(text, special, [&](std::string_view piece, int32_t id) {
    if (id >= 0) return ids.push_back(id);
    encode_plain(piece, ids);
  });
}

std::string SentencePieceTokenizer::piece(int32_t id) const {
  check_id(id);
  return model_->piece(id);
}

int32_t SentencePieceTokenizer::token_id(std::string_view piece) const {
  return model_->token_id(piece);
}

bool SentencePieceTokenizer::is_special(int32_t id) const {
  check_id(id);
  return is_special_[static_cast<size_t>(id)];
}

int32_t SentencePieceTokenizer::vocab_size() const { return model_->vocab_size(); }
int32_t SentencePieceTokenizer::bos_id() const { return model_->bos_id(); }
int32_t SentencePieceTokenizer::eos_id() const { return model_->eos_id(); }

void train_tokenizer(std::span<const std::string> sample, int vocab_size,
                     const std::string& output_path) {
  const bool empty = std::all_of(sample.begin(), sample.end(),
                                 [](const std::string& text) { return text.empty(); });
  if (empty) throw data_error("tokenizer: there is no text to train a vocabulary on");
  std::string serialized;
  try {
    serialized = train_sentencepiece(training_options(vocab_size), sample);
  } catch (const std::runtime_error& error) {
    throw training_error(error.what(), vocab_size);
  }
  write_file_durably(output_path, serialized, ExitCode::data);
}

}  // namespace caravan
