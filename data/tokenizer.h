// Text to token ids and back: the interface of all tokenizers, and how one is opened. Kinds are
// SentencePieceTokenizer (a .model file) and BpeTokenizer (byte-level BPE, a tokenizer.json). No
// chat templates.
//
// Text is UTF-8; what is not becomes U+FFFD (data/utf8.h). Ids are in [0, vocab_size()).
// Threads: const members may be called from any number of threads.
// Errors: data_error, one line, with the name of the file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

// What becomes of special tokens (bos, eos, marks of a chat) when ids turn into text.
enum class SpecialTokens { skip, show };

class Tokenizer {
 public:
  virtual ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Appends the ids of `text`, without prefix and suffix. A special token that is spelled out in
  // the text is plain text: no document can forge the end of a document. Added tokens that are not
  // special are recognised.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text) const;

  // The same, but special tokens are recognised: for text that a program has put together.
  void encode_with_special(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode_with_special(std::string_view text) const;

  // What the tokenizer wants before and after a single sequence (bos, say); both may be empty.
  virtual std::span<const int32_t> prefix_ids() const = 0;
  virtual std::span<const int32_t> suffix_ids() const = 0;
  // What documents of a token file begin with, when `eos_id` ends them: the prefix, so that a model
  // sees in training what it is given later; nothing when eos is a part of it (GPT-2's bos is its
  // eos), because eos alone then stands between documents.
  std::span<const int32_t> document_prefix(int32_t eos_id) const;
  int32_t document_bos_id(int32_t eos_id) const;  // the first of it; -1 when it is empty

  // Valid UTF-8: what tokens leave broken becomes U+FFFD. DecodeStream does it token by token.
  std::string decode(std::span<const int32_t> ids,
                     SpecialTokens special = SpecialTokens::skip) const;
  // The bytes that a token stands for: perhaps a part of a character. Special tokens have none
  // when they are skipped, and their names when they are shown.
  virtual std::string_view token_bytes(int32_t id, SpecialTokens special) const = 0;
  // A space that decoding drops at the very beginning, because encoding has put it there.
  virtual bool adds_space() const { return false; }

  virtual std::string piece(int32_t id) const = 0;  // the vocabulary's name: "▁the", "</s>"
  virtual int32_t token_id(std::string_view piece) const = 0;  // -1: there is no such token
  virtual bool is_special(int32_t id) const = 0;
  virtual int32_t vocab_size() const = 0;  // the largest id + 1
  virtual int32_t bos_id() const = 0;      // -1 when there is none; may be eos_id()
  virtual int32_t eos_id() const = 0;

  const std::string& path() const { return path_; }  // the file that was read
  const std::string& hash() const { return hash_; }  // of that file: 16 hexadecimal digits

  // path(), then the other files that belong to it and lie in its folder: copied together under
  // `file_name()` and their own names, they are the same tokenizer elsewhere.
  const std::vector<std::string>& files() const { return files_; }
  virtual std::string file_name() const = 0;  // "tokenizer.json" or "tokenizer.model"

 protected:
  Tokenizer(const std::string& path, std::string_view contents);
  void check_id(int32_t id) const;
  void add_files(std::span<const std::string_view> names);  // those that are there

 private:
  virtual void encode_valid(std::string_view text, SpecialTokens special,
                            std::vector<int32_t>& ids) const = 0;
  void encode(std::string_view text, SpecialTokens special, std::vector<int32_t>& ids) const;

  std::string path_;
  std::string hash_;
  std::vector<std::string> files_;
};

// Tokenizer::hash of a file with these contents.
std::string tokenizer_hash(std::string_view contents);

// Opens a tokenizer.json, a SentencePiece .model, or a folder with one of them (of Hugging Face or
// of `caravan data build`): its tokenizer.json when that is byte-level BPE, else tokenizer.model.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path);

}  // namespace caravan
