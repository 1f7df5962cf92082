#include "data/token_file.h"

#include <filesystem>
#include <string_view>

#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestVocabulary = 1 << 24;  // as that of a model

bool is_file(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) && !fs::is_directory(path, ignored);
}

std::string with_extension(const std::string& path, const char* extension) {
  return fs::path(path).replace_extension(extension).string();
}

void check_id(const std::string& path, const char* key, int64_t id, int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return;
  throw config_error(
      absl::StrFormat("%s: data.%s %d is not in a vocabulary of %d tokens: change "
                      "it, or data.vocab_size",
                      path, key, id, vocab_size));
}

template <typename Value>
void check_same(const std::string& path, const char* key, const std::optional<Value>& given,
                const Value& said) {
  if (!given || *given == said) return;
  if constexpr (std::is_same_v<Value, std::string>) {
    throw config_error(
        absl::StrFormat("%s: was made with the tokenizer %s, data.%s is %s: leave it out", path,
                        said, key, *given));
  } else {
    throw config_error(absl::StrFormat("%s: says %d itself where data.%s is %d: leave it out", path,
                                       said, key, *given));
  }
}

}  // namespace

std::string describe(const TokenVocabulary& vocabulary) {
  if (!vocabulary.tokenizer_hash.empty()) return "tokenizer " + vocabulary.tokenizer_hash;
  return absl::StrFormat("vocabulary of %d with eos %d", vocabulary.size, vocabulary.eos_id);
}

std::optional<std::string> find_token_file(const std::string& path, const std::string& split) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    const std::string file = (fs::path(path) / (split + ".h5")).string();
    return is_file(file) ? std::optional(file) : std::nullopt;
  }
  if (path.ends_with(".idx") && is_file(path)) {
    const std::string bin = with_extension(path, ".bin");
    return is_file(bin) ? std::optional(bin) : std::nullopt;
  }
  if (is_file(path)) return path;
  // The prefix that Megatron's users write; not replace_extension, as it may have dots.
  if (is_file(path + ".bin") && is_file(path + ".idx")) return path + ".bin";
  return {};
}

std::string token_file_path(const std::string& path, const std::string& split) {
  if (const auto found = find_token_file(path, split)) return *found;
  const bool is_folder = fs::is_directory(path);
  const std::string file = is_folder ? (fs::path(path) / (split + ".h5")).string() : path;
  if (path.ends_with(".idx") && is_file(path)) {
    throw data_error(absl::StrFormat("%s: has no %s beside it; both are needed", path,
                                     with_extension(path, ".bin")));
  }
  throw data_error(absl::StrFormat(
      "%s: no such token file: make one with 'caravan data build TEXT... --output %s'", file,
      is_folder || !path.ends_with(".h5") ? path : fs::path(path).parent_path().string()));
}

std::string index_path(const std::string& bin_path) {
  return bin_path.ends_with(".bin") ? with_extension(bin_path, ".idx") : "";
}

TokenVocabulary complete_vocabulary(const std::string& path, const GivenVocabulary& given,
                                    const TokenVocabulary& usual) {
  const int64_t size = given.size.value_or(usual.size);
  const int64_t eos_id = given.eos_id.value_or(usual.eos_id);
  const int64_t bos_id = given.bos_id.value_or(usual.bos_id);
  if (size == 0 || eos_id == -1) {
    throw config_error(absl::StrFormat(
        "%s: does not say its vocabulary: give data.vocab_size and data.eos_token_id (the token "
        "between documents), or data.tokenizer (of 'data show': --tokenizer)",
        path));
  }
  if (size < 1 || size > kLargestVocabulary) {
    throw config_error(absl::StrFormat("%s: data.vocab_size %d: expected 1 to %d", path, size,
                                       kLargestVocabulary));
  }
  check_id(path, "eos_token_id", eos_id, size);
  if (bos_id != -1) check_id(path, "bos_token_id", bos_id, size);
  return {static_cast<int32_t>(size), static_cast<int32_t>(bos_id), static_cast<int32_t>(eos_id),
          given.tokenizer_hash.value_or(usual.tokenizer_hash)};
}

void check_same_vocabulary(const TokenFile& file, const TokenFile& other) {
  if (file.vocabulary() == other.vocabulary()) return;
  throw data_error(absl::StrFormat(
      "%s and %s: made with different tokenizers (%s, %s): build both with the same --tokenizer; "
      "of .bin files give data.tokenizer",
      file.path(), other.path(), describe(file.vocabulary()), describe(other.vocabulary())));
}

void check_given(const TokenFile& file, const GivenVocabulary& given) {
  const TokenVocabulary& said = file.vocabulary();
  check_same(file.path(), "tokenizer", given.tokenizer_hash, said.tokenizer_hash);
  check_same(file.path(), "vocab_size", given.size, int64_t{said.size});
  check_same(file.path(), "eos_token_id", given.eos_id, int64_t{said.eos_id});
  check_same(file.path(), "bos_token_id", given.bos_id, int64_t{said.bos_id});
}

}  // namespace caravan
