#include "data/sentencepiece_spec.h"

#include <cstdint>

#include "runtime/error.h"

namespace caravan {
namespace {

// Field numbers of sentencepiece_model.proto.
namespace model_field {
constexpr uint64_t kPieces = 1, kTrainer = 2, kNormalizer = 3;
}
namespace piece_field {
constexpr uint64_t kType = 3;
constexpr uint64_t kUserDefined = 4, kUnused = 5;  // values of it
}  // namespace piece_field
namespace trainer_field {
constexpr uint64_t kModelType = 3, kWhitespaceAsSuffix = 24, kByteFallback = 35;
}
namespace normalizer_field {
constexpr uint64_t kTable = 2, kDummyPrefix = 3, kExtraWhitespaces = 4, kEscapes = 5;
}

// The fields of one message, in their order.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  bool next() {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    number = tag >> 3;
    value = 0;
    bytes = {};
    switch (tag & 7) {
      case 0:
        value = varint();
        return true;
      case 1:
        bytes = take(8);
        return true;
      case 2:
        bytes = take(varint());
        return true;
      case 5:
        bytes = take(4);
        return true;
      default:
        fail();
    }
  }

  uint64_t number = 0;
  uint64_t value = 0;      // of a number
  std::string_view bytes;  // of all else

 private:
  [[noreturn]] static void fail() { throw data_error("tokenizer: is not a SentencePiece model"); }

  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      result |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return result;
    }
    fail();
  }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
};

void read_piece(Fields piece, SentencePieceSpec& spec) {
  while (piece.next()) {
    if (piece.number != piece_field::kType) continue;
    spec.has_user_defined |= piece.value == piece_field::kUserDefined;
    spec.has_unused |= piece.value == piece_field::kUnused;
  }
}

void read_trainer(Fields trainer, SentencePieceSpec& spec) {
  while (trainer.next()) {
    if (trainer.number == trainer_field::kModelType) {
      spec.model_type = static_cast<int>(trainer.value);
    } else if (trainer.number == trainer_field::kWhitespaceAsSuffix) {
      spec.treat_whitespace_as_suffix = trainer.value != 0;
    } else if (trainer.number == trainer_field::kByteFallback) {
      spec.byte_fallback = trainer.value != 0;
    }
  }
}

void read_normalizer(Fields normalizer, SentencePieceSpec& spec) {
  while (normalizer.next()) {
    if (normalizer.number == normalizer_field::kTable) {
      spec.normalizes = !normalizer.bytes.empty();
    } else if (normalizer.number == normalizer_field::kDummyPrefix) {
      spec.add_dummy_prefix = normalizer.value != 0;
    } else if (normalizer.number == normalizer_field::kExtraWhitespaces) {
      spec.remove_extra_whitespaces = normalizer.value != 0;
    } else if (normalizer.number == normalizer_field::kEscapes) {
      spec.escape_whitespaces = normalizer.value != 0;
    }
  }
}

}  // namespace

SentencePieceSpec read_sentencepiece_spec(std::string_view serialized) {
  SentencePieceSpec spec;
  Fields model(serialized);
  while (model.next()) {
    if (model.number == model_field::kPieces) read_piece(Fields(model.bytes), spec);
    if (model.number == model_field::kTrainer) read_trainer(Fields(model.bytes), spec);
    if (model.number == model_field::kNormalizer) read_normalizer(Fields(model.bytes), spec);
  }
  return spec;
}

}  // namespace caravan
