// Token files that others made, and which kind a path is. Golden files are of
// tests/golden/make_token_files.py; the others are made here, byte by byte.
#include "data/token_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "data/bin_token_file.h"
#include "data/megatron_token_file.h"
#include "tests/data/foreign_token_files.h"
#include "tests/data/support.h"

namespace caravan {
namespace {

const GivenVocabulary kGiven{.size = 1000, .bos_id = {}, .eos_id = kTestEos, .tokenizer_hash = {}};

std::vector<int32_t> all_tokens(const TokenFile& file) {
  std::vector<int32_t> tokens(static_cast<size_t>(file.num_tokens()));
  file.read(0, tokens);
  return tokens;
}

std::unique_ptr<TokenFile> open(const std::string& path, const GivenVocabulary& given = kGiven) {
  return open_token_file(path, "train", given);
}

std::string golden(const std::string& name) {
  return std::string(CARAVAN_SOURCE_DIR) + "/tests/golden/token_files/" + name;
}

// What make_token_files.py writes: three documents, tokens counting up.
std::vector<int32_t> golden_tokens(int32_t first, int32_t eos) {
  std::vector<int32_t> tokens;
  for (const int length : {5, 0, 9}) {
    for (int i = 0; i < length; ++i) tokens.push_back(first++);
    tokens.push_back(eos);
  }
  return tokens;
}

TEST(TokenFile, ReadsTheFormatsOfOthers) {
  const auto nanogpt = open(golden("nanogpt.bin"), {50257, {}, 50256, {}});
  EXPECT_EQ(all_tokens(*nanogpt), golden_tokens(300, 50256));
  const auto gpt2 = open(golden("llmc_gpt2.bin"), {});
  EXPECT_EQ(all_tokens(*gpt2), golden_tokens(300, 50256));
  EXPECT_EQ(gpt2->vocabulary(), (TokenVocabulary{50257, -1, 50256, ""}));
  const auto llama3 = open(golden("llmc_llama3.bin"), {128256, 128000, 128001, {}});
  EXPECT_EQ(all_tokens(*llama3), golden_tokens(100000, 128001));
  EXPECT_EQ(llama3->vocabulary(), (TokenVocabulary{128256, 128000, 128001, ""}));
  for (const char* name : {"megatron_u16_text_document", "megatron_u16_text_document.bin",
                           "megatron_u16_text_document.idx"}) {
    const auto file = open(golden(name), {50257, {}, 50256, "hash"});
    EXPECT_EQ(all_tokens(*file), golden_tokens(300, 50256));
    EXPECT_EQ(file->path(), golden("megatron_u16_text_document.bin"));
    EXPECT_EQ(file->num_documents(), 3);
    EXPECT_EQ(file->document_begin(1), 6);
    EXPECT_EQ(file->document_begin(2), 7);
    EXPECT_EQ(file->document_begin(3), 17);
    EXPECT_EQ(file->vocabulary(), (TokenVocabulary{50257, -1, 50256, "hash"}));
  }
  const auto wide = open(golden("megatron_i32_text_document"), {128256, {}, 128001, {}});
  EXPECT_EQ(all_tokens(*wide), golden_tokens(100000, 128001));
}

TEST(TokenFile, TellsKindsApartByWhatTheyAre) {
  const DataFolder folder;
  write_test_tokens(folder.file("ours.anything"), {5});
  EXPECT_EQ(open(folder.file("ours.anything"), {})->num_documents(), 1);
  // The magic number of llm.c, under any name; an index beside a file that has one wins.
  folder.write("llmc.tokens", LlmcFile{.tokens = {5, 6, 2}}.bytes());
  EXPECT_EQ(all_tokens(*open(folder.file("llmc.tokens"))), (std::vector<int32_t>{5, 6, 2}));
  folder.write("raw.bin", packed<uint16_t>(std::vector{7, 8, 2}));
  EXPECT_EQ(all_tokens(*open(folder.file("raw.bin"))), (std::vector<int32_t>{7, 8, 2}));
  EXPECT_FALSE(open(folder.file("raw.bin"))->num_documents().has_value());
  folder.write("raw.tokens", packed<uint16_t>(std::vector{7, 8, 2, 7, 8, 2}));
  const std::string other = message_of(ExitCode::data, [&] { open(folder.file("raw.tokens")); });
  expect_contains(other, {"raw.tokens", "not a token file", "caravan data build"});
  folder.write("raw.idx", "no index");
  const std::string stray = message_of(ExitCode::data, [&] { open(folder.file("raw.bin")); });
  expect_contains(stray, {"raw.idx", "not an index"});
  folder.write("lonely.idx", index_of({1}, 8, 2).bytes());
  const std::string lonely = message_of(ExitCode::data, [&] { open(folder.file("lonely.idx")); });
  expect_contains(lonely, {"lonely.idx", "lonely.bin"});
}

TEST(TokenFile, PrefixesMayHaveDots) {
  const DataFolder folder;
  folder.write("c4.v1_text_document.bin", packed<uint16_t>(std::vector{7, 2}));
  folder.write("c4.v1_text_document.idx", index_of({2}, 8, 2).bytes());
  EXPECT_EQ(open(folder.file("c4.v1_text_document"))->num_documents(), 1);
}

TEST(TokenFile, WhatIsNotSaidMustBeGiven) {
  const DataFolder folder;
  folder.write("raw.bin", packed<uint16_t>(std::vector{7, 2}));
  folder.write("u32.bin", LlmcFile{.tokens = {7, 2}, .magic = 20240801, .version = 7}.bytes());
  folder.write("m.bin", packed<uint16_t>(std::vector{7, 2}));
  folder.write("m.idx", index_of({2}, 8, 2).bytes());
  for (const char* name : {"raw.bin", "u32.bin", "m.bin", "m"}) {
    for (const GivenVocabulary& given :
         {GivenVocabulary{}, GivenVocabulary{.size = 50}, GivenVocabulary{.eos_id = 2}}) {
      expect_contains(
          message_of(ExitCode::config, [&] { open(folder.file(name), given); }),
          {folder.file(name), "data.vocab_size", "data.eos_token_id", "data.tokenizer"});
    }
    const auto refused = [&](const GivenVocabulary& given) {
      return message_of(ExitCode::config, [&] { open(folder.file(name), given); });
    };
    expect_contains(refused({50, {}, 50, {}}), {folder.file(name), "eos_token_id 50"});
    expect_contains(refused({50, 51, 2, {}}), {folder.file(name), "bos_token_id 51"});
    expect_contains(refused({int64_t{1} << 40, {}, 2, {}}), {folder.file(name), "vocab_size"});
    expect_contains(refused({-5, {}, 2, {}}), {folder.file(name), "vocab_size"});
  }
  const std::string wide = message_of(ExitCode::config, [&] {
    open(folder.file("raw.bin"), {65537, {}, 2, {}});
  });
  expect_contains(wide, {"raw.bin", "16 bits", "65537"});
}

TEST(TokenFile, WhatAFileSaysItselfMustNotBeGivenOtherwise) {
  const DataFolder folder;
  write_test_tokens(folder.file("a.h5"), {5});
  const std::string path = folder.file("a.h5");
  open(path, {1000, kTestBos, kTestEos, "0123456789abcdef"});
  const auto refused = [&](const GivenVocabulary& given) {
    return message_of(ExitCode::config, [&] { open(path, given); });
  };
  expect_contains(refused({.size = 999}), {path, "data.vocab_size", "999", "1000"});
  expect_contains(refused({.eos_id = 3}), {path, "data.eos_token_id"});
  expect_contains(refused({.bos_id = 3}), {path, "data.bos_token_id"});
  expect_contains(refused({.tokenizer_hash = "x"}), {path, "data.tokenizer"});
}

TEST(TokenFile, TokensOutsideTheVocabularyAreNotGivenOut) {
  const DataFolder folder;
  const auto refused = [&](const std::string& name, const std::string& bytes, int64_t token) {
    folder.write(name, bytes);
    const auto file = open(folder.file(name));
    expect_contains(message_of(ExitCode::data, [&] { all_tokens(*file); }),
                    {folder.file(name), "token " + std::to_string(token), "position 1", "1000"});
  };
  refused("raw.bin", packed<uint16_t>(std::vector{5, 1000, 2}), 1000);
  refused("l.bin", LlmcFile{.tokens = {5, 65535, 2}}.bytes(), 65535);
  const LlmcFile wide{.tokens = {5, -1, 2}, .magic = 20240801, .version = 7};
  refused("w.bin", wide.bytes(), 4294967295);
  folder.write("m.idx", index_of({3}, 4, 4).bytes());
  refused("m.bin", packed<int32_t>(std::vector{5, -7, 2}), -7);
  folder.write("n.idx", index_of({3}, 5, 8).bytes());
  refused("n.bin", packed<int64_t>(std::vector<int64_t>{5, int64_t{1} << 40, 2}), int64_t{1} << 40);
}

// Also across the border of what is converted at a time.
TEST(TokenFile, ReadsAnyRangeOfEveryType) {
  const DataFolder folder;
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 40000; ++i) tokens.push_back(3 + i * 7919 % 100);
  tokens.back() = kTestEos;
  const auto check_ranges = [&](const std::string& name) {
    const auto file = open(folder.file(name));
    for (const int64_t first : {0, 1, 8191, 16384, 23456}) {
      for (const int64_t count : {0, 1, 3, 8193, 16385}) {
        std::vector<int32_t> read(static_cast<size_t>(count));
        file->read(first, read);
        EXPECT_TRUE(std::equal(read.begin(), read.end(), tokens.begin() + first)) << name << first;
      }
    }
  };
  const std::vector<std::tuple<uint8_t, int64_t, std::string>> types = {
      {1, 1, packed<uint8_t>(tokens)}, {2, 1, packed<int8_t>(tokens)},
      {3, 2, packed<int16_t>(tokens)}, {4, 4, packed<int32_t>(tokens)},
      {5, 8, packed<int64_t>(tokens)}, {8, 2, packed<uint16_t>(tokens)}};
  for (const auto& [type, bytes, content] : types) {
    folder.write("m.bin", content);
    folder.write("m.idx", index_of({39000, 0, 1000}, type, bytes).bytes());
    // The first document has no eos: as a sequence of the second it needs none.
    MegatronIndex index = index_of({39000, 0, 1000}, type, bytes);
    index.documents = {0, 3};
    index.num_documents = 2;
    folder.write("m.idx", index.bytes());
    check_ranges("m.bin");
  }
  folder.write("raw.bin", packed<uint16_t>(tokens));
  check_ranges("raw.bin");
}

TEST(BinTokenFile, RefusesDamagedFiles) {
  const DataFolder folder;
  const std::string path = folder.file("a.bin");
  const auto message = [&](const std::string& bytes) {
    folder.write("a.bin", bytes);
    const std::string text = message_of(ExitCode::data, [&] { open(path); });
    expect_contains(text, {path});
    return text;
  };
  const LlmcFile good{.tokens = {5, 6, 2}};
  for (const size_t size : {size_t{4}, size_t{6}, size_t{1022}}) {
    expect_contains(message(good.bytes().substr(0, size)), {"header"});
  }
  expect_contains(message(good.bytes().substr(0, 1024)), {"3 tokens", "1024 bytes"});
  expect_contains(message(good.bytes().substr(0, 1029)), {"3 tokens", "1029 bytes"});
  expect_contains(message(good.bytes() + "x"), {"3 tokens", "1031 bytes"});
  for (const int32_t count : {-1, 2, 4, INT32_MAX, INT32_MIN}) {
    const LlmcFile file{.tokens = {5, 6, 2}, .count = count};
    expect_contains(message(file.bytes()), {std::to_string(count) + " tokens"});
  }
  expect_contains(message(LlmcFile{.tokens = {5}, .version = 2}.bytes()), {"version 2"});
  const LlmcFile crossed{.tokens = {5}, .magic = 20240801, .version = 1};
  expect_contains(message(crossed.bytes()), {"version 1", "version 7"});
  const LlmcFile questions{.tokens = {5}, .magic = 20240522};
  expect_contains(message(questions.bytes()), {"multiple-choice"});
  expect_contains(message("abc"), {"3 bytes"});
  expect_contains(message(packed<int32_t>(golden_tokens(3, 2))), {"32-bit", ".idx"});
  expect_contains(message(packed<int64_t>(golden_tokens(3, 2))), {"32-bit", ".idx"});
}

TEST(BinTokenFile, ATruncatedFileIsAnError) {
  const DataFolder folder;
  folder.write("a.bin", packed<uint16_t>(std::vector<int>(5000, 7)));
  const auto file = open(folder.file("a.bin"));
  std::filesystem::resize_file(folder.file("a.bin"), 900);
  expect_contains(message_of(ExitCode::data, [&] { all_tokens(*file); }), {"became shorter"});
}

class Megatron : public testing::Test {
 protected:
  // Three documents; the second has two sequences, the last is empty.
  static MegatronIndex good() {
    MegatronIndex index{.lengths = {3, 2, 2}, .pointers = {0, 6, 10}, .documents = {0, 1, 3, 3}};
    return index;
  }

  std::string message(const std::string& index, const std::vector<int32_t>& tokens = kTokens) {
    folder_.write("m.bin", packed<uint16_t>(tokens));
    folder_.write("m.idx", index);
    const std::string text = message_of(ExitCode::data, [&] { open(folder_.file("m")); });
    expect_contains(text, {folder_.file("m.")});
    return text;
  }

  void accept(const std::string& index) {
    folder_.write("m.bin", packed<uint16_t>(kTokens));
    folder_.write("m.idx", index);
    const auto file = open(folder_.file("m"));
    EXPECT_EQ(all_tokens(*file), kTokens);
    EXPECT_EQ(file->num_documents(), 3);
    EXPECT_EQ(file->document_begin(2), 7);
  }

  static inline const std::vector<int32_t> kTokens = {5, 6, 2, 7, 8, 9, 2};
  DataFolder folder_;
};

TEST_F(Megatron, TheFileThatIsDamagedBelowIsGood) {
  accept(good().bytes());
  MegatronIndex with_modes = good();
  with_modes.modes = {0, 0, 0};
  accept(with_modes.bytes());
}

TEST_F(Megatron, EveryTruncationIsRefused) {
  const std::string bytes = good().bytes();
  for (size_t size = 0; size < bytes.size(); ++size) message(bytes.substr(0, size));
  message(bytes + "x");
  message(bytes, {5, 6, 2, 7, 8, 9});
  message(bytes, {5, 6, 2, 7, 8, 9, 2, 2});
}

TEST_F(Megatron, HeadersAreChecked) {
  MegatronIndex index = good();
  index.magic[0] = 'X';
  expect_contains(message(index.bytes()), {"not an index"});
  index = good();
  index.version = uint64_t{1} << 63;
  expect_contains(message(index.bytes()), {"version 9223372036854775808"});
  for (const int type : {6, 7}) {
    index = good();
    index.type = static_cast<uint8_t>(type);
    expect_contains(message(index.bytes()), {"floating-point"});
  }
  for (const int type : {0, 9, 255}) {
    index = good();
    index.type = static_cast<uint8_t>(type);
    expect_contains(message(index.bytes()), {"type " + std::to_string(type)});
  }
  for (const uint64_t count : {uint64_t{0}, uint64_t{2}, uint64_t{5}, uint64_t{1} << 32,
                               uint64_t{1} << 61, uint64_t{1} << 62, UINT64_MAX}) {
    index = good();
    index.num_sequences = count;
    expect_contains(message(index.bytes()), {"damaged index"});
    index = good();
    index.num_documents = count;
    expect_contains(message(index.bytes()), {"damaged index"});
  }
  // 12 * 2^62 is 0 modulo 2^64: such counts must not pass for none.
  index = {.lengths = {}, .pointers = {}, .num_sequences = uint64_t{1} << 62};
  expect_contains(message(index.bytes(), {}), {"damaged index"});
}

TEST_F(Megatron, SequencesAreChecked) {
  const auto refused = [&](const std::vector<int32_t>& lengths,
                           const std::vector<int64_t>& pointers, const char* words) {
    MegatronIndex index = good();
    index.lengths = lengths;
    index.pointers = pointers;
    expect_contains(message(index.bytes()), {words});
  };
  refused({-1, 2, 2}, {0, 6, 10}, "damaged index: sequence 0 has -1 tokens");
  refused({3, INT32_MIN, 2}, {0, 6, 10}, "damaged index: sequence 1");
  refused({3, 2, INT32_MAX}, {0, 6, 10}, "damaged index: sequence 2");
  refused({3, 2, 3}, {0, 6, 10}, "damaged index: sequence 2");
  refused({3, 2, 1}, {0, 6, 10}, "end at byte 12");
  refused({3, 2, 2}, {0, -6, 10}, "damaged index: sequence 1");
  refused({3, 2, 2}, {0, 6, 16}, "damaged index: sequence 2");
  refused({3, 2, 2}, {0, 6, INT64_MAX}, "damaged index: sequence 2");
  refused({3, 2, 2}, {INT64_MIN, 6, 10}, "damaged index: sequence 0");
  refused({3, 2, 2}, {0, 10, 6}, "one after the other");
  refused({3, 2, 2}, {0, 5, 10}, "one after the other");  // overlap
  refused({2, 2, 2}, {0, 6, 10}, "one after the other");  // a gap
}

TEST_F(Megatron, DocumentsAreChecked) {
  for (const std::vector<int64_t>& documents : {std::vector<int64_t>{1, 1, 3, 3},
                                                {0, 3, 1, 3},
                                                {0, 1, 4, 3},
                                                {0, 1, 3, 2},
                                                {0, -1, 3, 3},
                                                {0, 1, 3, 4},
                                                {0, INT64_MIN, 3, 3},
                                                {0, 1, INT64_MAX, 3},
                                                {0, 1, 2, 2},
                                                {0, 0, 0, 0}}) {
    MegatronIndex index = good();
    index.documents = documents;
    expect_contains(message(index.bytes()), {"damaged index", "documents"});
  }
  MegatronIndex pictures = good();
  pictures.modes = {0, 1, 0};
  expect_contains(message(pictures.bytes()), {"sequence 1", "mode 1"});
}

TEST_F(Megatron, DocumentsMustEndWithEos) {
  expect_contains(message(good().bytes(), {5, 6, 4, 7, 8, 9, 4}),
                  {"2 of the 3 documents", "eos token 2", "--append-eod"});
  expect_contains(message(good().bytes(), {5, 6, 2, 7, 8, 9, 4}), {"1 of the 3 documents"});
}

// More than the pieces in which an index is read; what is wrong lies in the last.
TEST_F(Megatron, LongIndexesAreReadInPieces) {
  const std::vector<int32_t> lengths(40000, 1);
  const std::vector<int32_t> tokens(40000, kTestEos);
  MegatronIndex index = index_of(lengths, 8, 2);
  folder_.write("m.bin", packed<uint16_t>(tokens));
  folder_.write("m.idx", index.bytes());
  const auto file = open(folder_.file("m"));
  EXPECT_EQ(file->num_documents(), 40000);
  EXPECT_EQ(file->document_begin(39999), 39999);
  EXPECT_EQ(file->document_begin(40000), 40000);
  index.pointers[39999] = 2;
  expect_contains(message(index.bytes(), tokens), {"sequence 39999"});
  index.pointers[39999] = 79998;
  index.documents[39999] = 39997;
  expect_contains(message(index.bytes(), tokens), {"entry 39999"});
}

}  // namespace
}  // namespace caravan
