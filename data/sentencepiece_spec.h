// What a SentencePiece .model says of how it treats text, which the library does not tell. Reads
// the few fields of its protobuf message; all others are passed over. Errors: data_error for bytes
// that are no such message.
#pragma once

#include <string_view>

namespace caravan {

struct SentencePieceSpec {
  static constexpr int kBpe = 2;
  int model_type = 1;  // unigram
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  bool normalizes = false;  // has a table of characters to replace
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_user_defined = false;
  bool has_unused = false;
};

SentencePieceSpec read_sentencepiece_spec(std::string_view serialized);

}  // namespace caravan
