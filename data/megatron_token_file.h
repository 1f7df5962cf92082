// Token files of Megatron-LM (and of what was made of it): NAME.bin has the tokens, NAME.idx says
// where its sequences and documents lie. The layout of an index, little-endian:
//   "MMIDIDX\0\0"  u64 version 1  u8 type  u64 S, sequences  u64 D, entries of documents
//   (S) i32 lengths in tokens   (S) i64 first bytes in the .bin   (D) i64 first sequences, 0 .. S
//   optionally (S) i8 modes: 0 is text
// Sequences must lie one after the other, as Megatron writes them: then no table is needed, and
// memory does not grow with the file. Documents must end with eos (--append-eod), which training
// goes by. Errors: see token_file.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "data/token_file.h"
#include "data/token_numbers.h"

namespace caravan {

class MegatronTokenFile : public TokenFile {
 public:
  // `path` is that of the .bin. Checks the whole index, and the ends of some documents.
  MegatronTokenFile(const std::string& path, const GivenVocabulary& given);

  const std::string& path() const override { return tokens_.path(); }
  const TokenVocabulary& vocabulary() const override { return vocabulary_; }
  int64_t num_tokens() const override { return num_tokens_; }
  std::optional<int64_t> num_documents() const override { return num_documents_; }
  void read(int64_t first, std::span<int32_t> tokens) const override;
  int64_t document_begin(int64_t document) const override;

 private:
  void read_header();
  void check_sequences() const;
  void check_documents() const;
  void check_modes() const;
  void check_ends() const;
  int64_t pointers_offset() const;
  int64_t documents_offset() const;

  ReadableFile tokens_;
  ReadableFile index_;
  TokenVocabulary vocabulary_;
  TokenType type_ = TokenType::u16;
  int64_t num_sequences_ = 0;
  int64_t num_tokens_ = 0;
  int64_t num_documents_ = 0;
};

}  // namespace caravan
