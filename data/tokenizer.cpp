#include "data/tokenizer.h"

#include <simdjson.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "data/bpe_tokenizer.h"
#include "data/folder_path.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/tokenizer_json.h"
#include "data/utf8.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// Whether the folder has the file; an error when it is a link out of the folder.
bool has_file(const std::string& folder, const std::string& name) {
  std::error_code error;
  const std::optional<std::string> path =
      find_inside(folder.empty() ? "." : folder, name, ExitCode::data);
  return path && fs::is_regular_file(*path, error);
}

std::unique_ptr<Tokenizer> open_folder(const std::string& folder) {
  const std::string json = (fs::path(folder) / "tokenizer.json").string();
  const std::string model = (fs::path(folder) / "tokenizer.model").string();
  if (has_file(folder, "tokenizer.json")) {
    const std::string unsupported = why_not_byte_level(json);
    if (unsupported.empty()) return std::make_unique<BpeTokenizer>(json);
    if (!has_file(folder, "tokenizer.model")) throw data_error(unsupported);
    return std::make_unique<SentencePieceTokenizer>(model, /*in_folder=*/true);
  }
  if (has_file(folder, "tokenizer.model"))
    return std::make_unique<SentencePieceTokenizer>(model, /*in_folder=*/true);
  throw data_error(folder +
                   ": has neither tokenizer.json nor tokenizer.model: name a folder or file of a "
                   "tokenizer");
}

}  // namespace

std::string tokenizer_hash(std::string_view contents) {
  return absl::StrFormat("%016x", stable_hash(contents));
}

Tokenizer::Tokenizer(const std::string& path, std::string_view contents)
    : path_(path), hash_(tokenizer_hash(contents)), files_{path} {}

Tokenizer::~Tokenizer() = default;

std::span<const int32_t> Tokenizer::document_prefix(int32_t eos_id) const {
  const std::span<const int32_t> prefix = prefix_ids();
  const bool has_eos = std::find(prefix.begin(), prefix.end(), eos_id) != prefix.end();
  return has_eos ? std::span<const int32_t>() : prefix;
}

int32_t Tokenizer::document_bos_id(int32_t eos_id) const {
  const std::span<const int32_t> prefix = document_prefix(eos_id);
  return prefix.empty() ? -1 : prefix.front();
}

void Tokenizer::check_id(int32_t id) const {
  check(id >= 0 && id < vocab_size(), "tokenizer: id %d of a vocabulary of %d", id, vocab_size());
}

void Tokenizer::add_files(std::span<const std::string_view> names) {
  for (const std::string_view name : names) {
    const fs::path folder = fs::path(path_).parent_path();
    if (fs::path(path_).filename() == name || !has_file(folder.string(), std::string(name)))
      continue;
    files_.push_back((folder / name).string());
  }
}

void Tokenizer::encode(std::string_view text, SpecialTokens special,
                       std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  if (simdjson::validate_utf8(text.data(), text.size())) return encode_valid(text, special, ids);
  std::string repaired(text);
  replace_invalid_utf8(repaired);
  encode_valid(repaired, special, ids);
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>& ids) const {
  encode(text, SpecialTokens::skip, ids);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, ids);
  return ids;
}

void Tokenizer::encode_with_special(std::string_view text, std::vector<int32_t>& ids) const {
  encode(text, SpecialTokens::show, ids);
}

std::vector<int32_t> Tokenizer::encode_with_special(std::string_view text) const {
  std::vector<int32_t> ids;
  encode_with_special(text, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, SpecialTokens special) const {
  std::string text;
  bool at_start = adds_space();
  for (const int32_t id : ids) {
    check_id(id);
    std::string_view bytes = token_bytes(id, special);
    if (at_start && bytes.starts_with(' ')) bytes.remove_prefix(1);
    at_start = at_start && token_bytes(id, special).empty();
    text += bytes;
  }
  replace_invalid_utf8(text);
  return text;
}

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return open_folder(path);
  if (path.ends_with(".json")) return std::make_unique<BpeTokenizer>(path);
  return std::make_unique<SentencePieceTokenizer>(path);
}

}  // namespace caravan
