// Token files: the tokens of many documents, end to end, read at any place. TokenFile is what
// training sees of one, whoever made it; open_token_file() picks the class by what the file is:
//   hdf5_token_file.h       .h5, made by `caravan data build`; says all that there is to say
//   bin_token_file.h        .bin of nanoGPT, llm.c and modded-nanogpt
//   megatron_token_file.h   .bin and .idx of Megatron-LM
// Nothing here knows of text, sequences or batches.
//
// Errors: data_error, one line, with the name of the file; config_error where a configuration must
// say more of a file, or says something else than the file does.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace caravan {

struct TokenVocabulary {
  int32_t size = 0;
  int32_t bos_id = -1;  // -1: documents begin without one; never eos_id
  int32_t eos_id = -1;
  std::string tokenizer_hash;

  bool operator==(const TokenVocabulary&) const = default;
};
// "tokenizer 0123456789abcdef"; where none is known, "vocabulary of 50257 with eos 50256".
std::string describe(const TokenVocabulary& vocabulary);

// What a configuration says of the vocabulary, for files that do not say it themselves. Absent
// things are not said.
struct GivenVocabulary {
  std::optional<int64_t> size = {};
  std::optional<int64_t> bos_id = {};
  std::optional<int64_t> eos_id = {};  // stands between documents
  std::optional<std::string> tokenizer_hash = {};
};

// An open token file. It holds descriptors and a few numbers; tokens are read with pread, not
// mapped: what is resident stays known, and a file that is cut off later is an error, no signal.
// Const members may be called from any number of threads.
class TokenFile {
 public:
  virtual ~TokenFile() = default;

  virtual const std::string& path() const = 0;
  virtual const TokenVocabulary& vocabulary() const = 0;
  virtual int64_t num_tokens() const = 0;
  // Absent: the file does not say; only its eos tokens do.
  virtual std::optional<int64_t> num_documents() const = 0;

  // Tokens [first, first + tokens.size()), each checked to be in the vocabulary. No allocation.
  virtual void read(int64_t first, std::span<int32_t> tokens) const = 0;

  // Where a document begins; document num_documents() begins at num_tokens(). Only where the file
  // says how many there are.
  virtual int64_t document_begin(int64_t document) const = 0;
};

// Opens and checks the file that a configuration means by `path` (see token_file_path). HDF5 is
// known by its signature, llm.c by its magic number, Megatron by the .idx beside the .bin; a .bin
// with neither is nanoGPT's if the vocabulary is given. Anything else is refused. May touch the
// HDF5 library: one thread in the process at a time (hdf5_file.h).
std::unique_ptr<TokenFile> open_token_file(const std::string& path, const std::string& split,
                                           const GivenVocabulary& given);

// The file that a configuration means by `path`: itself; in a folder made by `caravan data build`
// its <split>.h5; of "NAME" where there are NAME.bin and NAME.idx, or of NAME.idx, NAME.bin. A
// missing one is a data_error that says how to make it.
std::string token_file_path(const std::string& path, const std::string& split);

// The same; nothing when there is no such file.
std::optional<std::string> find_token_file(const std::string& path, const std::string& split);

// The .idx that belongs to a .bin: NAME.idx of NAME.bin. Empty for other names.
std::string index_path(const std::string& bin_path);

// The vocabulary of a file that does not say it: what is given, else that of `usual`. A
// config_error that names file and keys when size or eos are in neither, or ids are not in it.
TokenVocabulary complete_vocabulary(const std::string& path, const GivenVocabulary& given,
                                    const TokenVocabulary& usual = {});

// A data_error that says how to mend it when two files of one run have different vocabularies.
void check_same_vocabulary(const TokenFile& file, const TokenFile& other);

// A config_error when something is given that is not what the file says of itself.
void check_given(const TokenFile& file, const GivenVocabulary& given);

}  // namespace caravan
