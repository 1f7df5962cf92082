// What a configuration says of token files that do not say their vocabulary, and which files go
// together.
#include "launch/data_feed.h"

#include <gtest/gtest.h>

#include "data/sentencepiece_tokenizer.h"
#include "tests/data/foreign_token_files.h"
#include "tests/data/support.h"

namespace caravan {
namespace {

class DataFeedTest : public testing::Test {
 protected:
  Config config(const std::string& train, const std::string& validation) const {
    Config config;
    config.data.train = {{folder_.file(train), 1.0}};
    if (!validation.empty()) config.data.validation = folder_.file(validation);
    config.data.sequence_len = 4;
    config.train.global_batch_size = 1;
    config.train.micro_batch_size = 1;
    return config;
  }

  DataFolder folder_;
};

TEST_F(DataFeedTest, KeysWinOverTheTokenizer) {
  std::vector<std::string> sample;
  for (int i = 0; i < 50; ++i) sample.push_back("line " + std::to_string(i) + " of the sample\n");
  train_tokenizer(sample, 300, folder_.file("tokenizer.model"));
  const SentencePieceTokenizer tokenizer(folder_.file("tokenizer.model"));
  for (const std::string& path : {folder_.file("tokenizer.model"), folder_.path()}) {
    DataConfig data;
    data.tokenizer = path;
    GivenVocabulary given = given_vocabulary(data);
    EXPECT_EQ(given.size, 300);
    EXPECT_EQ(given.eos_id, tokenizer.eos_id());
    EXPECT_EQ(given.bos_id, tokenizer.bos_id());
    EXPECT_EQ(given.tokenizer_hash, tokenizer.hash());
    data.vocab_size = 310;
    data.eos_token_id = 0;
    data.bos_token_id = 7;
    given = given_vocabulary(data);
    EXPECT_EQ(given.size, 310);
    EXPECT_EQ(given.eos_id, 0);
    EXPECT_EQ(given.bos_id, 7);
    EXPECT_EQ(given.tokenizer_hash, tokenizer.hash());
  }
  DataConfig missing;
  missing.tokenizer = folder_.file("none.model");
  expect_contains(message_of(ExitCode::data, [&] { given_vocabulary(missing); }), {"none.model"});
}

TEST_F(DataFeedTest, NothingIsGivenByDefault) {
  const GivenVocabulary given = given_vocabulary(DataConfig());
  EXPECT_FALSE(given.size || given.eos_id || given.bos_id || given.tokenizer_hash);
}

TEST_F(DataFeedTest, ValidationHasTheVocabularyOfTraining) {
  write_test_tokens(folder_.file("a.h5"), {20});
  write_test_tokens(folder_.file("b.h5"), {20});
  TokenVocabulary larger = test_vocabulary(2000);
  write_test_tokens(folder_.file("larger.h5"), {20}, larger);
  const Mesh mesh{};
  DataFeed(config("a.h5", "b.h5"), mesh);
  const auto refused = [&] { DataFeed(config("a.h5", "larger.h5"), mesh); };
  expect_contains(message_of(ExitCode::data, refused), {"larger.h5", "a.h5", "--tokenizer"});
}

TEST_F(DataFeedTest, IdentityOfForeignFiles) {
  folder_.write("a.bin", packed<uint16_t>(std::vector{5, 6, 7, 8, 2, 5, 6, 2}));
  Config foreign = config("a.bin", "");
  foreign.data.vocab_size = 50;
  foreign.data.eos_token_id = 2;
  const Mesh mesh{};
  const std::string identity = DataFeed(foreign, mesh).identity();
  expect_contains(identity, {"8 tokens, vocabulary of 50 with eos 2, checksum "});
  folder_.write("a.bin", packed<uint16_t>(std::vector{5, 6, 7, 8, 2, 5, 9, 2}));
  EXPECT_NE(DataFeed(foreign, mesh).identity(), identity);
  EXPECT_EQ(with_data_vocabulary(foreign).model.vocab_size, 50);
  foreign.model.vocab_size = 49;
  expect_contains(message_of(ExitCode::config, [&] { with_data_vocabulary(foreign); }),
                  {"model.vocab_size 49", "the 50 tokens of", "a.bin"});
}

}  // namespace
}  // namespace caravan
