// Tokenizer with a SentencePiece vocabulary (.model file), and the training of such a vocabulary.
//
// With a vocabulary from train_tokenizer(), decode(encode(x)) == x for every valid UTF-8 x: nothing
// is normalised, spaces and newlines are kept, unknown characters become bytes.
// Ids are those of the library that is linked (0.1.97): where two ways to cut a text have the same
// score, as a Unigram vocabulary can have it, other versions may choose the other.
// Threads and errors: as data/tokenizer.h says.
#pragma once

#include "data/tokenizer.h"

namespace caravan {

class AddedTokens;
class SentencePieceModel;

class SentencePieceTokenizer final : public Tokenizer {
 public:
  // `in_folder`: a tokenizer.json beside it has been found to say the same, and belongs to it.
  explicit SentencePieceTokenizer(const std::string& path, bool in_folder = false);
  ~SentencePieceTokenizer() override;

  std::span<const int32_t> prefix_ids() const override { return prefix_ids_; }
  std::span<const int32_t> suffix_ids() const override { return {}; }
  std::string_view token_bytes(int32_t id, SpecialTokens special) const override;
  bool adds_space() const override { return adds_space_; }
  std::string piece(int32_t id) const override;
  int32_t token_id(std::string_view piece) const override;
  bool is_special(int32_t id) const override;
  int32_t vocab_size() const override;
  int32_t bos_id() const override;
  int32_t eos_id() const override;
  std::string file_name() const override { return "tokenizer.model"; }

  const SentencePieceModel& model() const { return *model_; }
  const std::string& serialized() const { return serialized_; }  // the bytes of the file

 private:
  explicit SentencePieceTokenizer(const std::string& path, std::string serialized);
  void encode_valid(std::string_view text, SpecialTokens special,
                    std::vector<int32_t>& ids) const override;
  void encode_plain(std::string_view text, std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view text, std::vector<int32_t>& ids) const;
  void read_tokens();

  std::string serialized_;
  std::unique_ptr<SentencePieceModel> model_;
  std::vector<std::string> token_bytes_;         // by id; of special tokens their names
  std::vector<bool> is_special_;                 // by id
  std::unique_ptr<AddedTokens> special_tokens_;  // unknown, bos, eos and other control tokens
  std::vector<int32_t> prefix_ids_;
  std::vector<int32_t> space_mark_ids_;  // the bytes of U+2581; empty without byte fallback
  bool adds_space_ = false;              // the vocabulary puts a space before every text
};

// Trains a BPE vocabulary on the sample and writes it to `output_path` (durably, by rename). Each
// element of the sample is a piece of text, best a few KiB that end with a line. The same sample
// gives the same file. Time grows with the sample: about 1 s per MB.
void train_tokenizer(std::span<const std::string> sample, int vocab_size,
                     const std::string& output_path);

}  // namespace caravan
