// Our own token files: the tokens of many documents, end to end, in an HDF5 file. TokenFileWriter
// makes one, Hdf5TokenFile reads it. Neither knows of text, sequences or batches.
//
// Every document is stored as [bos] tokens eos: bos where the vocabulary has one, eos always and
// nowhere else, so that it marks the borders. A tokenizer whose bos is its eos (GPT-2) has no bos
// in a token file (bos_id -1): eos alone stands between documents. Layout (all datasets
// contiguous):
//   tokens            (num_tokens)         u16, or u32 when vocab_size > 65536
//   document_offsets  (num_documents + 1)  i64, first 0, last num_tokens, strictly rising
//   attributes of the file: format_version, vocab_size, bos_id (-1: none), eos_id, num_documents,
//   token_dtype ("u16"), tokenizer_hash (Tokenizer::hash)
//
// Errors: data_error, one line, with the name of the file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "data/hdf5_file.h"
#include "data/token_file.h"

namespace caravan {

// Writes beside `path` and renames at close(), so that a half-written file never has the name.
// Memory does not grow with the number of documents: tokens go to two plain files first, because
// a contiguous dataset must know its size. Needs twice the space on disk until close().
// One thread; HDF5 is used by close() only.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::string& path, const TokenVocabulary& vocabulary);
  ~TokenFileWriter();  // without close(): removes what was written
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  // One document, without bos and eos; every id in [0, vocab_size) and none of them eos.
  void append(std::span<const int32_t> tokens);
  void close();  // durable when it returns

  int64_t num_tokens() const { return num_tokens_; }  // with bos and eos
  int64_t num_documents() const { return num_documents_; }

 private:
  class Staging;
  void put(int32_t token);

  std::string path_;
  TokenVocabulary vocabulary_;
  Hdf5Type type_;
  std::unique_ptr<Staging> tokens_;
  std::unique_ptr<Staging> offsets_;
  int64_t num_tokens_ = 0;
  int64_t num_documents_ = 0;
};

// See TokenFile. The constructor touches the HDF5 library (one thread in the process at a time:
// hdf5_file.h), the other members do not.
class Hdf5TokenFile : public TokenFile {
 public:
  explicit Hdf5TokenFile(const std::string& path);  // checks all but the tokens

  const std::string& path() const override { return reader_.path(); }
  const TokenVocabulary& vocabulary() const override { return vocabulary_; }
  int64_t num_tokens() const override { return num_tokens_; }
  std::optional<int64_t> num_documents() const override { return num_documents_; }
  void read(int64_t first, std::span<int32_t> tokens) const override;
  int64_t document_begin(int64_t document) const override;

 private:
  void check_sizes();
  void check_offsets() const;

  Hdf5Reader reader_;
  TokenVocabulary vocabulary_;
  Hdf5Type type_ = Hdf5Type::u16;
  int64_t num_tokens_ = 0;
  int64_t num_documents_ = 0;
};

}  // namespace caravan
