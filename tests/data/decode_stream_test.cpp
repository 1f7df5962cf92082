#include "data/decode_stream.h"

#include "data/sentencepiece_tokenizer.h"
#include "data/utf8.h"
#include "golden_text.h"
#include "support.h"

namespace caravan {
namespace {

const char* const kText =
    " the caravan \xC3\xA9\xE6\xBC\xA2\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 e\xCC\x81\n  x";

std::unique_ptr<Tokenizer> sentencepiece(const DataFolder& folder) {
  train_tokenizer(std::vector<std::string>{"the caravan and the salt\n"}, 275,
                  folder.file("t.model"));
  return open_tokenizer(folder.file("t.model"));
}

void expect_streams(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                    SpecialTokens special) {
  DecodeStream stream(tokenizer, special);
  std::string text;
  for (const int32_t id : ids) {
    std::string part = stream.add(id);
    EXPECT_EQ(incomplete_tail(part), 0u);
    EXPECT_EQ(replace_invalid_utf8(part), 0);
    text += part;
  }
  text += stream.finish();
  EXPECT_EQ(text, tokenizer.decode(ids, special));
}

TEST(DecodeStream, GivesWholeCharactersOfBothKindsOfTokenizer) {
  const DataFolder folder;
  const std::unique_ptr<Tokenizer> kinds[] = {sentencepiece(folder),
                                              open_tokenizer(golden_tokenizer_path("llama3"))};
  const std::vector<std::string> golden = read_golden_pieces();
  for (const std::unique_ptr<Tokenizer>& tokenizer : kinds) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(kText)), kText);
    std::vector<int32_t> ids = tokenizer->encode(kText);
    ids.insert(ids.begin() + 3, tokenizer->eos_id());
    for (const SpecialTokens special : {SpecialTokens::skip, SpecialTokens::show}) {
      expect_streams(*tokenizer, ids, special);
      expect_streams(*tokenizer, tokenizer->encode(golden_block(golden, 7)), special);
    }
  }
}

TEST(DecodeStream, NothingIsShownOfHalfACharacter) {
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(golden_tokenizer_path("gpt2"));
  const auto byte = [&](const char* name) { return tokenizer->token_id(name); };
  DecodeStream stream(*tokenizer);
  EXPECT_EQ(stream.add(byte("\xC3\xB0")), "");  // 0xF0
  EXPECT_EQ(stream.add(byte("\xC5\x81")), "");  // 0x9F
  EXPECT_EQ(stream.add(byte("\xC4\xBB")), "");  // 0x99
  EXPECT_EQ(stream.add(byte("\xC4\xA4")), "\xF0\x9F\x99\x82");
  EXPECT_EQ(stream.add(byte("\xC3\xB0")), "");
  EXPECT_EQ(stream.add(byte("a")),
            "\uFFFD"
            "a");
  EXPECT_EQ(stream.add(byte("\xC3\xB0")), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.add(tokenizer->eos_id()), "");
  DecodeStream shown(*tokenizer, SpecialTokens::show);
  EXPECT_EQ(shown.add(tokenizer->eos_id()), "<|endoftext|>");
  message_of(ExitCode::internal, [&] { stream.add(tokenizer->vocab_size()); });
}

}  // namespace
}  // namespace caravan
