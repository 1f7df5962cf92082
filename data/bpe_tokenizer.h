// Tokenizer of a byte-level BPE (tokenizer.json of GPT-2, Llama 3 and 4, DeepSeek V3 and the like):
// the ids are those of Hugging Face's `tokenizers`. What a file asks for and is not supported is
// refused when it is opened.
//
// decode(encode(x)) == x for every valid UTF-8 x, unless the file itself drops or adds text
// (keeps_text()). An added token decodes to its content; the library maps content that is all of
// the byte alphabet ("Ġ") to bytes.
// Threads and errors: as data/tokenizer.h says. Each thread that encodes at a time has a cache of
// 2 MiB, which is kept for the next.
#pragma once

#include <memory>
#include <mutex>

#include "data/added_tokens.h"
#include "data/bpe_model.h"
#include "data/pretokenizer.h"
#include "data/tokenizer.h"

namespace caravan {

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(const std::string& path);
  // Of a text instead of a file; `path` is for messages, and files beside it are not looked for.
  BpeTokenizer(std::string_view json, const std::string& path);
  ~BpeTokenizer() override;

  std::span<const int32_t> prefix_ids() const override { return json_.prefix_ids; }
  std::span<const int32_t> suffix_ids() const override { return json_.suffix_ids; }
  std::string_view token_bytes(int32_t id, SpecialTokens special) const override;
  std::string piece(int32_t id) const override;
  int32_t token_id(std::string_view piece) const override;
  bool is_special(int32_t id) const override;
  int32_t vocab_size() const override { return model_.vocab_size(); }
  int32_t bos_id() const override { return bos_id_; }
  int32_t eos_id() const override { return eos_id_; }
  std::string file_name() const override { return "tokenizer.json"; }

  bool keeps_text() const;

 private:
  struct Scratch;
  class ScratchLoan;
  void encode_valid(std::string_view text, SpecialTokens special,
                    std::vector<int32_t>& ids) const override;
  void find_ends(const std::string& folder);
  void check_prefix_space(const TokenNames& names) const;
  int32_t named(const std::string& name, const char* key) const;

  TokenizerJson json_;  // without the merges
  BpeModel model_;
  AddedTokens added_tokens_;
  Pretokenizer pretokenizer_;
  std::vector<std::string> added_content_;  // by id; "": no added token
  std::vector<bool> is_special_;            // by id
  TextMap<std::string_view, int32_t> ids_;
  int32_t bos_id_ = -1;
  int32_t eos_id_ = -1;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;  // guarded by mutex_
};

}  // namespace caravan
