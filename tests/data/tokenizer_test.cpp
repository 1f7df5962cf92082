#include "data/sentencepiece_tokenizer.h"

#include <numeric>

#include "runtime/rng.h"
#include "support.h"

namespace caravan {
namespace {

std::vector<std::string> sample() {
  std::vector<std::string> result;
  const std::vector<std::string> words = {"caravan",  "carries", "tokens", "over",   "the",
                                          "mountain", "slowly",  "and",    "return", "value"};
  const RandomStream random(3, RandomPurpose::test, 0);
  uint64_t element = 0;
  for (int snippet = 0; snippet < 100; ++snippet) {
    std::string text;
    for (int line = 0; line < 20; ++line) {
      text.append((random.bits(element++) % 3) * 4, ' ');
      for (int word = 0; word < 8; ++word) text += words[random.bits(element++) % 10] + " ";
      text += ".\n";
    }
    result.push_back(text + "\n");
  }
  return result;
}

using TokenizerTest = TrainedVocabulary<sample, 350>;

TEST_F(TokenizerTest, DecodesWhatItEncoded) {
  std::string with_zero = "a";
  with_zero += '\0';
  with_zero += "b";
  const std::vector<std::string> texts = {
      "", " ", "caravan", " leading and trailing  ", "\n", "\n\n\n", "a\n    b\n        c\n",
      "tab\tand\r\nreturn", "   ", "\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x99\x82", "</s> <s> <unk> <0x41>",
      // SentencePiece's own marks of a space and of an unknown character
      "a\xE2\x96\x81"
      "b\xE2\x96\x81",
      "\xE2\x96\x81", "\xE2\x96\x85 \xE2\x81\x87", with_zero,
      "e\xCC\x81 \xEF\xAC\x81 \xEF\xBD\x81"};  // what NFKC would change
  for (const std::string& text : texts) {
    const std::vector<int32_t> ids = tokenizer_->encode(text);
    EXPECT_EQ(tokenizer_->decode(ids), text);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer_->eos_id()), 0) << text;
  }
}

TEST_F(TokenizerTest, RandomTextRoundTrips) {
  const RandomStream random(1, RandomPurpose::test, 0);
  const std::vector<std::string> parts = {
      " ", "\n", "\t", "caravan", "over", "\xE6\xBC\xA2", "<s>", "\xE2\x96\x81", "7", "."};
  uint64_t element = 0;
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += parts[random.bits(element++) % parts.size()];
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text)), text);
  }
}

TEST_F(TokenizerTest, LongTextIsEncodedInPieces) {
  std::string text;
  for (const std::string& snippet : sample()) text += snippet;
  while (text.size() < (size_t{1} << 20)) text += text;
  EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text)), text);
  const std::string one_line(600000, 'x');
  EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(one_line)), one_line);
}

TEST_F(TokenizerTest, IndentationIsCheap) {
  EXPECT_LE(tokenizer_->encode("\n        caravan").size(), 3u);
}

TEST_F(TokenizerTest, HasControlTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 350);
  EXPECT_EQ(tokenizer_->bos_id(), 1);
  EXPECT_EQ(tokenizer_->eos_id(), 2);
  EXPECT_EQ(tokenizer_->piece(2), "</s>");
  EXPECT_EQ(tokenizer_->decode(std::vector<int32_t>{1, 2}), "");
  message_of(ExitCode::internal, [] { tokenizer_->decode(std::vector<int32_t>{350}); });
  message_of(ExitCode::internal, [] { tokenizer_->decode(std::vector<int32_t>{-1}); });
}

TEST_F(TokenizerTest, TrainingIsDeterministic) {
  train_tokenizer(sample(), 350, folder_->file("again.model"));
  EXPECT_EQ(SentencePieceTokenizer(folder_->file("again.model")).hash(), tokenizer_->hash());
}

TEST_F(TokenizerTest, SaysWhatIsWrong) {
  expect_contains(
      message_of(ExitCode::data, [] { SentencePieceTokenizer(folder_->file("none.model")); }),
      {"none.model", "No such file"});
  const std::string path = folder_->write("bad.model", "this is no model");
  expect_contains(message_of(ExitCode::data, [&] { SentencePieceTokenizer t(path); }),
                  {path, "not a SentencePiece model"});
  const std::string empty = folder_->write("empty.model", "");
  message_of(ExitCode::data, [&] { SentencePieceTokenizer t(empty); });
  message_of(ExitCode::data, [] { SentencePieceTokenizer t(folder_->path()); });
}

TEST_F(TokenizerTest, NamesTheSmallestVocabulary) {
  std::vector<std::string> text = sample();
  text.push_back("\xCE\xB1\xCE\xB2\xCE\xB3\xCE\xB4 0123456789 ABCDEFGHIJ\n");
  const auto train = [&](int size) { train_tokenizer(text, size, folder_->file("x.model")); };
  const std::string message = message_of(ExitCode::data, [&] { train(262); });
  expect_contains(message, {" different characters", "vocabulary of 262", "--vocab-size "});
  const int smallest = std::stoi(message.substr(message.find("--vocab-size ") + 13));
  const int characters = std::stoi(message.substr(message.find("has ") + 4));
  EXPECT_EQ(characters + 259, smallest);
  message_of(ExitCode::data, [&] { train(smallest - 1); });
  EXPECT_NO_THROW(train(smallest));
}

TEST_F(TokenizerTest, NamesTheLargestVocabulary) {
  const auto train = [](int size) { train_tokenizer(sample(), size, folder_->file("x.model")); };
  const std::string message = message_of(ExitCode::data, [&] { train(100000); });
  expect_contains(message, {"vocabulary of 100000", "--vocab-size "});
  const int largest = std::stoi(message.substr(message.find("--vocab-size ") + 13));
  EXPECT_NO_THROW(train(largest));
  const std::vector<std::string> nothing = {"", ""};
  expect_contains(
      message_of(ExitCode::data, [&] { train_tokenizer(nothing, 300, folder_->file("x.model")); }),
      {"no text"});
}

}  // namespace
}  // namespace caravan
