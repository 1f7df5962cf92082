#include "data/decode_stream.h"

#include <utility>

#include "data/utf8.h"
#include "runtime/error.h"

namespace caravan {

DecodeStream::DecodeStream(const Tokenizer& tokenizer, SpecialTokens special)
    : tokenizer_(tokenizer), special_(special), at_start_(tokenizer.adds_space()) {}

std::string DecodeStream::add(int32_t id) {
  check(id >= 0 && id < tokenizer_.vocab_size(), "decode: id %d of a vocabulary of %d", id,
        tokenizer_.vocab_size());
  std::string_view bytes = tokenizer_.token_bytes(id, special_);
  if (bytes.empty()) return "";
  if (at_start_ && bytes.starts_with(' ')) bytes.remove_prefix(1);
  at_start_ = false;
  std::string text = std::exchange(pending_, "");
  text += bytes;
  const size_t complete = text.size() - incomplete_tail(text);
  pending_ = text.substr(complete);
  text.resize(complete);
  replace_invalid_utf8(text);
  return text;
}

std::string DecodeStream::finish() {
  std::string text = std::exchange(pending_, "");
  replace_invalid_utf8(text);
  at_start_ = tokenizer_.adds_space();
  return text;
}

}  // namespace caravan
