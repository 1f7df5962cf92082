// Ids to text, one at a time, for a reader who watches: no character comes out by halves.
// What add() and finish() return, put together, is Tokenizer::decode of all ids.
// One thread; the tokenizer must outlive it.
#pragma once

#include <string>

#include "data/tokenizer.h"

namespace caravan {

class DecodeStream {
 public:
  explicit DecodeStream(const Tokenizer& tokenizer, SpecialTokens special = SpecialTokens::skip);

  std::string add(int32_t id);  // the text that is complete now; perhaps none
  std::string finish();         // what is left: a character that was never completed is U+FFFD

 private:
  const Tokenizer& tokenizer_;
  SpecialTokens special_;
  std::string pending_;  // the beginning of a character, at most three bytes
  bool at_start_;        // the space that encoding puts first is still to come
};

}  // namespace caravan
