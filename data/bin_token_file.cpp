#include "data/bin_token_file.h"

#include <algorithm>
#include <array>
#include <vector>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int32_t kMagicU16 = 20240520;
constexpr int32_t kMagicU32 = 20240801;
constexpr int32_t kMagicQuestions = 20240522;
constexpr int32_t kVersionU16 = 1;
constexpr int32_t kVersionU32 = 7;
constexpr int64_t kLlmcHeaderBytes = 256 * 4;
constexpr int64_t kLargestU16Vocabulary = 65536;
constexpr int64_t kTokensLookedAt = 4096;  // of a file that says nothing, to see what it is not

const TokenVocabulary kGpt2 = {.size = 50257, .bos_id = -1, .eos_id = 50256, .tokenizer_hash = ""};

int32_t magic_of(const ReadableFile& file) {
  int32_t magic = 0;
  if (file.size_bytes() >= 4) file.read(0, 4, &magic);
  return magic;
}

}  // namespace

bool has_llmc_magic(const ReadableFile& file) {
  const int32_t magic = magic_of(file);
  return magic == kMagicU16 || magic == kMagicU32 || magic == kMagicQuestions;
}

BinTokenFile::BinTokenFile(const std::string& path, const GivenVocabulary& given)
    : file_(path, ExitCode::data, Links::followed) {
  if (has_llmc_magic(file_)) {
    read_header(given);
  } else {
    take_raw(given);
  }
}

void BinTokenFile::read_header(const GivenVocabulary& given) {
  if (file_.size_bytes() < kLlmcHeaderBytes) {
    throw data_error(
        absl::StrFormat("%s: %d bytes are less than llm.c's header of %d: copy the "
                        "file again",
                        path(), file_.size_bytes(), kLlmcHeaderBytes));
  }
  std::array<int32_t, 3> header{};
  file_.read(0, sizeof(header), header.data());
  const auto [magic, version, count] = header;
  if (magic == kMagicQuestions) {
    throw data_error(path() +
                     ": holds multiple-choice questions of llm.c for evaluation, no text "
                     "to train on: give another file");
  }
  const bool is_u16 = magic == kMagicU16;
  if (version != (is_u16 ? kVersionU16 : kVersionU32)) {
    throw data_error(absl::StrFormat(
        "%s: version %d of llm.c's token files with the magic number %d; this program reads "
        "version %d: make the file again",
        path(), version, magic, is_u16 ? kVersionU16 : kVersionU32));
  }
  type_ = is_u16 ? TokenType::u16 : TokenType::u32;
  tokens_offset_ = kLlmcHeaderBytes;
  num_tokens_ = count;
  const int64_t expected = kLlmcHeaderBytes + num_tokens_ * size_bytes(type_);
  if (count < 0 || expected != file_.size_bytes()) {
    throw data_error(absl::StrFormat(
        "%s: its header says %d tokens of %d bytes, which is not a file of %d bytes: copy or make "
        "it again",
        path(), count, size_bytes(type_), file_.size_bytes()));
  }
  vocabulary_ = complete_vocabulary(path(), given, is_u16 ? kGpt2 : TokenVocabulary{});
}

void BinTokenFile::take_raw(const GivenVocabulary& given) {
  vocabulary_ = complete_vocabulary(path(), given);
  if (vocabulary_.size > kLargestU16Vocabulary) {
    throw config_error(absl::StrFormat(
        "%s: a .bin without header and .idx holds ids of 16 bits, too few for a vocabulary of %d: "
        "give data.vocab_size of this file, or write it as HDF5 or with llm.c's header",
        path(), vocabulary_.size));
  }
  if (file_.size_bytes() % 2 != 0) {
    throw data_error(
        absl::StrFormat("%s: %d bytes are no whole number of 16-bit tokens: copy or make it again",
                        path(), file_.size_bytes()));
  }
  num_tokens_ = file_.size_bytes() / 2;
  refuse_wide_tokens();
}

// A .bin of Megatron whose .idx was left behind: of 32-bit ids the upper halves are all 0.
void BinTokenFile::refuse_wide_tokens() const {
  std::vector<uint16_t> tokens(static_cast<size_t>(std::min(num_tokens_, kTokensLookedAt)) / 2 * 2);
  if (tokens.size() < 16) return;
  file_.read(0, std::ssize(tokens) * 2, tokens.data());
  bool any_odd = false;
  bool any_even = false;
  for (size_t i = 0; i < tokens.size(); ++i) (i % 2 == 1 ? any_odd : any_even) |= tokens[i] != 0;
  if (any_odd || !any_even) return;
  throw data_error(path() +
                   ": every second of its 16-bit tokens is 0, so they are 32-bit or wider: if it "
                   "is Megatron's, its .idx must lie beside it");
}

void BinTokenFile::read(int64_t first, std::span<int32_t> tokens) const {
  check(first >= 0 && first <= num_tokens_ && std::ssize(tokens) <= num_tokens_ - first,
        "%s: tokens [%d, +%d) of %d", path(), first, tokens.size(), num_tokens_);
  read_tokens(file_, {tokens_offset_, type_, first}, vocabulary_.size, tokens);
}

int64_t BinTokenFile::document_begin(int64_t document) const {
  throw internal_error(absl::StrFormat("%s: asked where document %d begins, which it does not say",
                                       path(), document));
}

}  // namespace caravan
