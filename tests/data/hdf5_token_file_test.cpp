#include "data/hdf5_token_file.h"

#include <thread>

#include "runtime/rng.h"
#include "support.h"

namespace caravan {
namespace {

std::vector<int32_t> read_all(const TokenFile& file) {
  std::vector<int32_t> tokens(static_cast<size_t>(file.num_tokens()));
  file.read(0, tokens);
  return tokens;
}

TEST(Hdf5TokenFile, KeepsDocumentsBetweenBosAndEos) {
  const DataFolder folder;
  TokenFileWriter writer(folder.file("a.h5"), test_vocabulary());
  writer.append(std::vector<int32_t>{10, 11, 12});
  writer.append(std::vector<int32_t>{});
  writer.append(std::vector<int32_t>{999});
  writer.close();
  const Hdf5TokenFile file(folder.file("a.h5"));
  EXPECT_EQ(read_all(file), (std::vector<int32_t>{1, 10, 11, 12, 2, 1, 2, 1, 999, 2}));
  EXPECT_EQ(file.num_documents(), 3);
  EXPECT_EQ(file.document_begin(1), 5);
  EXPECT_EQ(file.document_begin(3), 10);
  EXPECT_EQ(file.vocabulary(), test_vocabulary());
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.h5"});  // nothing temporary left
}

TEST(Hdf5TokenFile, ReadsAnyRangeOfBothTypes) {
  const DataFolder folder;
  for (const int32_t vocab_size : {65536, 65537, 200000}) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 5000; ++i) tokens.push_back(3 + (i * 7919) % (vocab_size - 3));
    tokens.push_back(vocab_size - 1);
    const std::string path = folder.file(std::to_string(vocab_size) + ".h5");
    TokenFileWriter writer(path, test_vocabulary(vocab_size));
    writer.append(tokens);
    writer.close();
    const Hdf5TokenFile file(path);
    for (const int64_t first : {0, 1, 77, 4999}) {
      for (const int64_t count : {0, 1, 2, 3, 64}) {
        if (first + count > std::ssize(tokens)) continue;
        std::vector<int32_t> read(static_cast<size_t>(count));
        file.read(1 + first, read);
        EXPECT_TRUE(std::equal(read.begin(), read.end(), tokens.begin() + first));
      }
    }
  }
}

TEST(Hdf5TokenFile, WithoutBos) {
  const DataFolder folder;
  TokenVocabulary vocabulary = test_vocabulary();
  vocabulary.bos_id = -1;
  TokenFileWriter writer(folder.file("a.h5"), vocabulary);
  writer.append(std::vector<int32_t>{5});
  writer.close();
  EXPECT_EQ(read_all(Hdf5TokenFile(folder.file("a.h5"))), (std::vector<int32_t>{5, 2}));
}

TEST(Hdf5TokenFile, ManyThreadsRead) {
  const DataFolder folder;
  write_test_tokens(folder.file("a.h5"), {100000});
  const Hdf5TokenFile file(folder.file("a.h5"));
  const std::vector<int32_t> expected = read_all(file);
  std::vector<int> num_wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < num_wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      std::vector<int32_t> read(129);
      for (int64_t first = static_cast<int64_t>(t); first < 99000; first += 97) {
        file.read(first, read);
        num_wrong[t] += std::equal(read.begin(), read.end(), expected.begin() + first) ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_wrong, std::vector<int>(4, 0));
}

TEST(Hdf5TokenFile, AnUnfinishedWriterLeavesNothing) {
  const DataFolder folder;
  {
    TokenFileWriter writer(folder.file("a.h5"), test_vocabulary());
    writer.append(std::vector<int32_t>{5});
  }
  EXPECT_TRUE(folder.names().empty());
}

TEST(Hdf5TokenFile, RefusesTokensOutsideTheVocabulary) {
  const DataFolder folder;
  TokenFileWriter writer(folder.file("a.h5"), test_vocabulary(300));
  for (const int32_t bad : {-1, 300, kTestEos}) {
    message_of(ExitCode::internal, [&] { writer.append(std::vector<int32_t>{5, bad}); });
  }
}

// A token file whose parts can be made wrong one by one.
struct Parts {
  std::vector<uint16_t> tokens = {1, 5, 2, 1, 6, 2};
  std::vector<int64_t> offsets = {0, 3, 6};
  int64_t num_documents = 2;
  int64_t format_version = 1;
  int64_t vocab_size = 100;
  int64_t eos_id = 2;

  void write(const std::string& path) const {
    std::filesystem::remove(path);
    Hdf5Writer writer(path, ExitCode::data);
    writer.write_vector<uint16_t>("tokens", tokens);
    writer.write_vector<int64_t>("document_offsets", offsets);
    writer.write_attribute("", "format_version", format_version);
    writer.write_attribute("", "vocab_size", vocab_size);
    writer.write_attribute("", "bos_id", int64_t{1});
    writer.write_attribute("", "eos_id", eos_id);
    writer.write_attribute("", "num_documents", num_documents);
    writer.write_attribute("", "token_dtype", std::string("u16"));
    writer.write_attribute("", "tokenizer_hash", std::string("x"));
    writer.close();
  }
};

TEST(Hdf5TokenFile, RefusesDamagedFiles) {
  const DataFolder folder;
  const std::string path = folder.file("a.h5");
  const auto message = [&](const Parts& parts) {
    parts.write(path);
    const std::string text = message_of(ExitCode::data, [&] { Hdf5TokenFile file(path); });
    expect_contains(text, {path});
    return text;
  };
  Parts().write(path);
  EXPECT_EQ(Hdf5TokenFile(path).num_tokens(), 6);
  Parts parts;
  parts.offsets = {0, 7, 6};
  expect_contains(message(parts), {"document_offsets"});
  parts.offsets = {1, 3, 6};
  expect_contains(message(parts), {"document_offsets"});
  parts.offsets = {0, 3, 5};
  expect_contains(message(parts), {"document_offsets"});
  parts.offsets = {0, 3, 3, 6};
  parts.num_documents = 3;
  expect_contains(message(parts), {"document_offsets"});
  parts.num_documents = 2;
  expect_contains(message(parts), {"damaged"});
  parts = {};
  parts.num_documents = -1;
  expect_contains(message(parts), {"damaged"});
  parts = {};
  parts.eos_id = 100;
  expect_contains(message(parts), {"damaged"});
  parts = {};
  parts.vocab_size = int64_t{1} << 40;
  expect_contains(message(parts), {"damaged"});
  parts = {};
  parts.format_version = 2;
  expect_contains(message(parts), {"version 2", "data build"});
}

TEST(Hdf5TokenFile, ATokenBeyondTheVocabularyIsNotGivenOut) {
  const DataFolder folder;
  Parts parts;
  parts.tokens[4] = 100;
  parts.write(folder.file("a.h5"));
  const Hdf5TokenFile file(folder.file("a.h5"));
  expect_contains(message_of(ExitCode::data, [&] { read_all(file); }), {"token 100", "of 100"});
}

TEST(Hdf5TokenFile, ATruncatedFileIsAnError) {
  const DataFolder folder;
  const std::string path = folder.file("a.h5");
  write_test_tokens(path, {50000});
  const Hdf5TokenFile open(path);
  std::filesystem::resize_file(path, 9000);
  message_of(ExitCode::data, [&] { read_all(open); });
  message_of(ExitCode::data, [&] { Hdf5TokenFile file(path); });
}

TEST(Hdf5TokenFile, FindsTheFileOfASplit) {
  const DataFolder folder;
  folder.write("train.h5", "");
  EXPECT_EQ(token_file_path(folder.path(), "train"), folder.path() + "/train.h5");
  EXPECT_EQ(token_file_path(folder.file("train.h5"), "validation"), folder.file("train.h5"));
  expect_contains(message_of(ExitCode::data, [&] { token_file_path(folder.path(), "validation"); }),
                  {"validation.h5", "caravan data build", folder.path()});
  expect_contains(message_of(ExitCode::data, [&] { token_file_path("data/x", "train"); }),
                  {"data/x", "--output data/x"});
}

}  // namespace
}  // namespace caravan
