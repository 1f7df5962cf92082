// Text to token ids and back, with a SentencePiece vocabulary (.model file), and the training of
// such a vocabulary. No chat templates, no special-token parsing: "</s>" in a text is plain text.
//
// Text is UTF-8. With a vocabulary from train_tokenizer(), decode(encode(x)) == x for every valid
// UTF-8 x: nothing is normalised, spaces and newlines are kept, unknown characters become bytes.
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

class SentencePieceModel;

class Tokenizer {
 public:
  explicit Tokenizer(const std::string& path);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Appends the ids of `text`, without bos or eos. Long texts are encoded in pieces of about
  // 256 KiB, cut before a line, so that the memory used does not grow with the text.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text) const;

  // Control tokens (bos, eos) decode to nothing. Ids must be in [0, vocab_size).
  std::string decode(std::span<const int32_t> ids) const;
  std::string piece(int32_t id) const;  // the vocabulary's own name of a token: "▁the", "</s>"

  int32_t vocab_size() const;
  int32_t bos_id() const;  // -1 when the vocabulary has none
  int32_t eos_id() const;

  const std::string& path() const { return path_; }
  const std::string& hash() const { return hash_; }  // of the file: 16 hexadecimal digits

 private:
  void encode_piece(std::string_view text, std::vector<int32_t>& ids) const;

  std::string path_;
  std::string hash_;
  std::unique_ptr<SentencePieceModel> model_;
  std::vector<int32_t> space_mark_ids_;  // the bytes of U+2581; empty without byte fallback
  bool adds_space_ = false;              // the vocabulary puts a space before every text
};

// Trains a BPE vocabulary on the sample and writes it to `output_path` (durably, by rename). Each
// element of the sample is a piece of text, best a few KiB that end with a line. The same sample
// gives the same file. Time grows with the sample: about 1 s per MB.
void train_tokenizer(std::span<const std::string> sample, int vocab_size,
                     const std::string& output_path);

}  // namespace caravan
