// Any text as a tokenizer.json, or, when it does not begin with "{", as a pattern of one; and some
// text to encode with it, after the first zero byte: only data_error may come out, and what a
// tokenizer that keeps text has encoded decodes to that text.
#include <cstdint>
#include <memory>
#include <string>

#include "data/bpe_tokenizer.h"
#include "data/decode_stream.h"
#include "data/utf8.h"
#include "tests/fuzz/expect.h"

namespace {

using namespace caravan;

std::string streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  DecodeStream stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.add(id);
  return text + stream.finish();
}

// False when the pattern takes too long: it would with other text.
bool check_text(const BpeTokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids;
  const auto encode = [&] { tokenizer.encode(text, ids); };
  if (!fuzz::succeeds(ExitCode::data, encode)) return false;
  const auto encode_special = [&] { tokenizer.encode_with_special(text); };
  if (!fuzz::succeeds(ExitCode::data, encode_special)) return false;
  std::string valid = text;
  replace_invalid_utf8(valid);
  const std::string decoded = tokenizer.decode(ids);
  fuzz::expect(streamed(tokenizer, ids) == decoded, "the same, streamed", decoded);
  if (tokenizer.keeps_text()) fuzz::expect(decoded == valid, "the text again", decoded);
  return true;
}

void check_pattern(const std::string& pattern, std::string text) {
  std::unique_ptr<SplitRegex> regex;
  if (!fuzz::succeeds(ExitCode::data,
                      [&] { regex = std::make_unique<SplitRegex>(pattern, "fuzz.json: p"); })) {
    return;
  }
  replace_invalid_utf8(text);
  RegexScratch scratch;
  scratch.start(text.size());
  fuzz::succeeds(ExitCode::data, [&] {
    size_t done = 0;
    for (TextRange match; regex->find(text, done, scratch, match); done = match.end) {
      fuzz::expect(match.begin >= done && match.end > match.begin && match.end <= text.size(),
                   "matches that follow each other", pattern);
    }
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  const std::string text = zero == std::string::npos ? "" : input.substr(zero + 1);
  if (!input.starts_with('{')) {
    check_pattern(input.substr(0, zero), text);
    return 0;
  }
  std::unique_ptr<BpeTokenizer> tokenizer;
  const auto open = [&] {
    tokenizer =
        std::make_unique<BpeTokenizer>(std::string_view(input).substr(0, zero), "fuzz.json");
  };
  if (!fuzz::succeeds(ExitCode::data, open)) return 0;
  const std::string_view known =
      " 12345 it's\r\n \t a\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x99\x82 <|eot|> \n\n";
  for (const std::string& part : {text, input.substr(0, 500), std::string(known)}) {
    if (!check_text(*tokenizer, part)) break;
  }
  return 0;
}
