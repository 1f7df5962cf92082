// Training on the token files of other programs: the same tokens give the same losses, bit for bit,
// whoever wrote them.
#include <gtest/gtest.h>

#include "data/hdf5_token_file.h"
#include "tests/data/foreign_token_files.h"
#include "tests/e2e/caravan_process.h"

namespace caravan {
namespace {

struct Corpus {
  TokenVocabulary vocabulary;
  std::vector<int32_t> tokens;
  std::vector<int32_t> lengths;  // of the documents, with bos and eos
};

Corpus read_corpus(const std::string& path) {
  const Hdf5TokenFile file(path);
  Corpus corpus{
      file.vocabulary(), std::vector<int32_t>(static_cast<size_t>(file.num_tokens())), {}};
  file.read(0, corpus.tokens);
  for (int64_t d = 0; d < file.num_documents(); ++d) {
    const int64_t length = file.document_begin(d + 1) - file.document_begin(d);
    corpus.lengths.push_back(static_cast<int32_t>(length));
  }
  return corpus;
}

void write_megatron(const std::string& prefix, const Corpus& corpus) {
  write_file(prefix + ".bin", packed<int32_t>(corpus.tokens));
  write_file(prefix + ".idx", index_of(corpus.lengths, 4, 4).bytes());
}

class TokenFiles : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    bench_ = new Workbench;
    for (const char* split : {"train", "validation"}) {
      const std::string name = bench_->path(split);
      const Corpus corpus = read_corpus(bench_->path("data/") + split + ".h5");
      write_file(name + "-raw.bin", packed<uint16_t>(corpus.tokens));
      write_file(name + "-llmc.bin", LlmcFile{.tokens = corpus.tokens}.bytes());
      write_megatron(name + "-megatron", corpus);
      eos_id_ = corpus.vocabulary.eos_id;
    }
  }
  static void TearDownTestSuite() {
    delete bench_;
    bench_ = nullptr;
  }

  // What names the files of a kind; later overrides win.
  static std::string files(const std::string& kind) {
    return " data.train=" + bench_->path("train-" + kind) +
           " data.validation=" + bench_->path("validation-" + kind);
  }
  static std::vector<double> losses(const std::string& run, const std::string& overrides) {
    const ProcessResult result = bench_->train(run, overrides);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return bench_->losses(run);
  }

  static inline Workbench* bench_ = nullptr;
  static inline int32_t eos_id_ = 0;
};

TEST_F(TokenFiles, OfAllKindsTrainTheSameBits) {
  const std::vector<double> ours = losses("ours", "");
  ASSERT_EQ(ours.size(), 6u);
  const std::string keys = " data.vocab_size=300 data.eos_token_id=" + std::to_string(eos_id_);
  EXPECT_EQ(ours, losses("raw", files("raw.bin") + keys));
  EXPECT_EQ(ours, losses("llmc", files("llmc.bin") + keys));
  EXPECT_EQ(ours, losses("megatron", files("megatron") + keys));
  const std::string tokenizer = " data.tokenizer=" + bench_->path("data");
  EXPECT_EQ(ours, losses("tokenizer", files("megatron") + tokenizer));
  EXPECT_EQ(ours, losses("tokenizer-raw", files("raw.bin") + tokenizer));
}

// With its tokenizer a foreign file is as good as one of ours: both in one run.
TEST_F(TokenFiles, MixWithOurOwn) {
  const std::string both =
      "'data.train=[" + bench_->path("data") + ", " + bench_->path("train-raw.bin") + "]'";
  const std::string tokenizer = " data.tokenizer=" + bench_->path("data/tokenizer.model");
  losses("mixed", both + tokenizer);
  const ProcessResult unknown =
      bench_->train("unknown", both + " data.vocab_size=300 data.eos_token_id=2");
  EXPECT_EQ(unknown.exit_code, 3) << unknown.output;
  EXPECT_NE(unknown.output.find("data.tokenizer"), std::string::npos) << unknown.output;
}

TEST_F(TokenFiles, AskForWhatTheyDoNotSay) {
  const ProcessResult result = bench_->train("asks", files("raw.bin"));
  EXPECT_EQ(result.exit_code, 2) << result.output;
  for (const char* part : {"train-raw.bin", "data.vocab_size", "data.eos_token_id"}) {
    EXPECT_NE(result.output.find(part), std::string::npos) << result.output;
  }
  const ProcessResult plan = run_caravan("plan " + bench_->path("tiny.yaml") + files("megatron") +
                                         " data.tokenizer=" + bench_->path("data"));
  EXPECT_EQ(plan.exit_code, 0) << plan.output;
}

TEST_F(TokenFiles, AreShown) {
  const std::string tokenizer = " --tokenizer " + bench_->path("data/tokenizer.model");
  const auto samples = [&](const std::string& path) {
    const ProcessResult result = run_caravan("data show " + path + tokenizer);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.output.substr(std::min(result.output.find("===="), result.output.size()));
  };
  const std::string ours = samples(bench_->path("data"));
  EXPECT_NE(ours.find("caravan"), std::string::npos) << ours;
  EXPECT_EQ(ours, samples(bench_->path("train-megatron")));
  EXPECT_EQ(ours, samples(bench_->path("train-raw.bin")));
}

}  // namespace
}  // namespace caravan
