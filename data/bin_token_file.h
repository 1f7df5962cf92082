// Token files without an index, as nanoGPT, llm.c and modded-nanogpt write them:
//   nanoGPT   u16 tokens, nothing else
//   llm.c     256 i32: magic number, version, number of tokens, zeros; then the tokens
//             20240520 version 1: u16 of GPT-2's vocabulary; 20240801 version 7: u32
// Neither says where documents begin (eos does), nor the vocabulary; of llm.c's u16 files it is
// GPT-2's unless another is given. llm.c's files of multiple-choice questions (20240522) are
// refused. Errors: see token_file.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "data/token_file.h"
#include "data/token_numbers.h"

namespace caravan {

class BinTokenFile : public TokenFile {
 public:
  BinTokenFile(const std::string& path, const GivenVocabulary& given);  // checks all but the tokens

  const std::string& path() const override { return file_.path(); }
  const TokenVocabulary& vocabulary() const override { return vocabulary_; }
  int64_t num_tokens() const override { return num_tokens_; }
  std::optional<int64_t> num_documents() const override { return {}; }
  void read(int64_t first, std::span<int32_t> tokens) const override;
  int64_t document_begin(int64_t document) const override;  // never: see num_documents

 private:
  void read_header(const GivenVocabulary& given);
  void take_raw(const GivenVocabulary& given);
  void refuse_wide_tokens() const;

  ReadableFile file_;
  TokenVocabulary vocabulary_;
  TokenType type_ = TokenType::u16;
  int64_t tokens_offset_ = 0;  // in bytes
  int64_t num_tokens_ = 0;
};

// Whether a file begins with a magic number of llm.c, of whatever kind.
bool has_llmc_magic(const ReadableFile& file);

}  // namespace caravan
