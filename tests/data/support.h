// What several tests of data/ need: a folder of their own, files, token files, messages of errors.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/hdf5_token_file.h"
#include "data/sentencepiece_tokenizer.h"
#include "runtime/error.h"
#include "tests/support/temporary_folder.h"

namespace caravan {

// A folder that a test writes texts to.
class DataFolder : public TemporaryFolder {
 public:
  std::string file(const std::string& name) const { return *this / name; }

  std::string write(const std::string& name, std::string_view content) const {
    const std::string path = file(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(path())) {
      found.push_back(entry.path().filename().string());
    }
    return found;
  }
};

// The message of the error with this code that `action` ends in; one line.
inline std::string message_of(ExitCode code, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

inline void expect_contains(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' is not in: " << text;
  }
}

inline constexpr int32_t kTestBos = 1;
inline constexpr int32_t kTestEos = 2;

inline TokenVocabulary test_vocabulary(int32_t size = 1000) {
  return {size, kTestBos, kTestEos, "0123456789abcdef"};
}

// Documents of the given lengths (bos and eos not counted) whose tokens count up, modulo the
// vocabulary, from 3 on, through the whole file.
inline void write_test_tokens(const std::string& path, const std::vector<int>& lengths,
                              const TokenVocabulary& vocabulary = test_vocabulary()) {
  TokenFileWriter writer(path, vocabulary);
  int32_t next = 0;
  for (const int length : lengths) {
    std::vector<int32_t> tokens(static_cast<size_t>(length));
    for (int32_t& token : tokens) token = 3 + next++ % (vocabulary.size - 3);
    writer.append(tokens);
  }
  writer.close();
}

// A vocabulary that is trained once for all tests of a suite.
template <std::vector<std::string> (*kSample)(), int kVocabSize>
class TrainedVocabulary : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new DataFolder;
    train_tokenizer(kSample(), kVocabSize, folder_->file("t.model"));
    tokenizer_ = new SentencePieceTokenizer(folder_->file("t.model"));
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    delete folder_;
  }
  inline static DataFolder* folder_ = nullptr;
  inline static SentencePieceTokenizer* tokenizer_ = nullptr;
};

}  // namespace caravan
