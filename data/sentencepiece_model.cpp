// No header that includes Abseil may be included here: see sentencepiece_model.h.
#include "data/sentencepiece_model.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <cstdio>
#include <stdexcept>

namespace caravan {
namespace {

void require(const sentencepiece::util::Status& status) {
  if (status.ok()) return;
  std::string reason = status.ToString();
  for (char& c : reason) {
    if (c == '\n') c = ' ';
  }
  throw std::runtime_error(reason);
}

// Hands the sample to the trainer without a second copy of it.
class SpanIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit SpanIterator(std::span<const std::string> sentences) : sentences_(sentences) {}
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::span<const std::string> sentences_;
  size_t next_ = 0;
};

}  // namespace

struct SentencePieceModel::Library {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel(const std::string& serialized)
    : library_(std::make_unique<Library>()) {
  require(library_->processor.LoadFromSerializedProto(serialized));
}

SentencePieceModel::~SentencePieceModel() = default;

void SentencePieceModel::encode(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<int> encoded;
  require(library_->processor.Encode(text, &encoded));
  ids.insert(ids.end(), encoded.begin(), encoded.end());
}

std::string SentencePieceModel::decode(std::span<const int32_t> ids) const {
  std::string text;
  require(library_->processor.Decode(std::vector<int>(ids.begin(), ids.end()), &text));
  return text;
}

std::string SentencePieceModel::piece(int32_t id) const {
  return library_->processor.IdToPiece(id);
}

PieceKind SentencePieceModel::kind(int32_t id) const {
  if (library_->processor.IsControl(id)) return PieceKind::control;
  if (library_->processor.IsUnknown(id)) return PieceKind::unknown;
  if (library_->processor.IsUnused(id)) return PieceKind::unused;
  return library_->processor.IsByte(id) ? PieceKind::byte : PieceKind::normal;
}

float SentencePieceModel::score(int32_t id) const { return library_->processor.GetScore(id); }

int32_t SentencePieceModel::token_id(std::string_view piece) const {
  const int id = library_->processor.PieceToId(piece);  // of <unk> when there is none
  return library_->processor.IdToPiece(id) == piece ? id : -1;
}

int32_t SentencePieceModel::vocab_size() const { return library_->processor.GetPieceSize(); }
int32_t SentencePieceModel::bos_id() const { return library_->processor.bos_id(); }
int32_t SentencePieceModel::eos_id() const { return library_->processor.eos_id(); }

int32_t SentencePieceModel::byte_id(uint8_t byte) const {
  char name[8];
  std::snprintf(name, sizeof(name), "<0x%02X>", byte);
  const int id = library_->processor.PieceToId(name);
  return library_->processor.IsByte(id) ? id : -1;
}

std::string train_sentencepiece(const std::unordered_map<std::string, std::string>& options,
                                std::span<const std::string> sentences) {
  SpanIterator iterator(sentences);
  std::string serialized;
  require(sentencepiece::SentencePieceTrainer::Train(options, &iterator, &serialized));
  return serialized;
}

}  // namespace caravan
