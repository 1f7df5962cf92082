// The one door to the SentencePiece library, which declares its own absl::string_view and therefore
// cannot share a source file with Abseil. Used by SentencePieceTokenizer and hf_tokenizer only;
// knows nothing of files or `Error`.
//
// Errors: std::runtime_error with the library's reason on one line. Const members are thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace caravan {

enum class PieceKind { normal, unknown, control, unused, byte };

class SentencePieceModel {
 public:
  explicit SentencePieceModel(const std::string& serialized);  // the bytes of a .model file
  ~SentencePieceModel();

  void encode(std::string_view text, std::vector<int32_t>& ids) const;  // appends
  std::string decode(std::span<const int32_t> ids) const;
  std::string piece(int32_t id) const;
  PieceKind kind(int32_t id) const;                // normal: user-defined ones too
  float score(int32_t id) const;                   // higher ones are merged first
  int32_t token_id(std::string_view piece) const;  // -1: there is no such piece
  int32_t vocab_size() const;
  int32_t bos_id() const;  // -1 when the vocabulary has none
  int32_t eos_id() const;
  int32_t byte_id(uint8_t byte) const;  // -1 without byte fallback

 private:
  struct Library;
  std::unique_ptr<Library> library_;
};

// The trained model as the bytes of a .model file.
std::string train_sentencepiece(const std::unordered_map<std::string, std::string>& options,
                                std::span<const std::string> sentences);

}  // namespace caravan
