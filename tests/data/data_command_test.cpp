#include "launch/data_command.h"

#include <CLI/CLI.hpp>
#include <sstream>

#include "data/build.h"
#include "data/sentencepiece_tokenizer.h"
#include "golden_text.h"
#include "support.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

class DataCommand : public testing::Test {
 protected:
  DataCommand() {
    std::string text;
    for (int i = 0; i < 400; ++i) {
      text += "{\"text\": \"the " + std::to_string(i) + " caravans walk over the hill of salt\"}\n";
    }
    folder_.write("text.jsonl", text);
  }
  // The exit code of the command line.
  static int run(std::vector<std::string> arguments) {
    CLI::App app("test", "caravan");
    add_data_command(app);
    std::reverse(arguments.begin(), arguments.end());
    try {
      app.parse(arguments);
    } catch (const CLI::Error& error) {
      std::ostringstream ignored;
      return app.exit(error, ignored, ignored);
    }
    return 0;
  }
  int build() const {
    return run({"data", "build", folder_.file("text.jsonl"), "--output", folder_.file("out"),
                "--vocab-size", "300", "--validation-fraction", "0.1"});
  }

  DataFolder folder_;
};

TEST_F(DataCommand, BuildsAndShows) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(build(), 0);
  expect_contains(testing::internal::GetCapturedStdout(),
                  {"400 documents", "vocabulary", "300 tokens", "bytes per token", "validation"});
  std::ostringstream shown;
  show_samples({.path = folder_.file("out"), .num_samples = 3, .sequence_len = 90}, shown);
  expect_contains(shown.str(), {"sample 0", "sample 2", "---- next document ----",
                                " caravans walk over the hill of salt</s>", "[[<s>]]the "});
}

TEST_F(DataCommand, ShowsTokensOfAByteLevelTokenizer) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(run({"data", "build", folder_.file("text.jsonl"), "--output", folder_.file("out"),
                 "--tokenizer", golden_tokenizer_path("llama3") + "/tokenizer.json", "--eos-token",
                 "<|eot_id|>", "--validation-fraction", "0.1"}),
            0);
  testing::internal::GetCapturedStdout();
  fs::remove(folder_.file("out/tokenizer_config.json"));  // the token file knows its own end
  std::ostringstream shown;
  show_samples({.path = folder_.file("out"), .num_samples = 1, .sequence_len = 90}, shown);
  expect_contains(shown.str(),
                  {"---- next document ----", " caravans walk over the hill of salt<|eot_id|>",
                   "[[<|begin_of_text|>]]the "});
}

// What is printed is what the file holds: without its marks, it is the text.
TEST_F(DataCommand, MarksExactlyWhatIsNotTrainedOn) {
  testing::internal::CaptureStdout();
  ASSERT_EQ(build(), 0);
  testing::internal::GetCapturedStdout();
  std::ostringstream shown;
  show_samples({.path = folder_.file("out/validation.h5"), .num_samples = 1, .sequence_len = 200},
               shown);
  const std::string text = shown.str().substr(shown.str().find("===="));
  size_t num_documents = 0;
  for (size_t at = 0; (at = text.find("---- next document ----\n", at)) != std::string::npos;
       ++at) {
    EXPECT_EQ(text.compare(at + 24, 8, "[[<s>]]t"), 0) << text.substr(at, 60);
    ++num_documents;
  }
  EXPECT_GE(num_documents, 3u);
  expect_contains(
      text, {absl::StrFormat("%d documents, %d of 200", num_documents + 1, 200 - num_documents)});
  std::ostringstream stream;
  show_samples({.path = folder_.file("out"),
                .num_samples = 1,
                .sequence_len = 200,
                .attend_across_documents = true},
               stream);
  expect_contains(stream.str(), {"200 of 200 tokens", "\n---- next document ----\n<s>the "});
}

TEST_F(DataCommand, RefusesAnotherTokenizer) {
  testing::internal::CaptureStdout();
  ASSERT_EQ(build(), 0);
  testing::internal::GetCapturedStdout();
  const std::vector<std::string> sample = {"some other text, some other words\n"};
  train_tokenizer(sample, 285, folder_.file("other.model"));
  const ShowOptions options{.path = folder_.file("out"), .tokenizer = folder_.file("other.model")};
  std::ostringstream shown;
  expect_contains(message_of(ExitCode::data, [&] { show_samples(options, shown); }),
                  {"other.model", "--tokenizer"});
}

TEST_F(DataCommand, UsageErrors) {
  EXPECT_NE(run({"data", "build"}), 0);
  EXPECT_NE(run({"data", "build", "x", "--output", "y", "--vocab-size", "300", "--tokenizer", "z"}),
            0);
  EXPECT_NE(run({"data", "show", "x", "--samples", "0"}), 0);
  const std::string text = folder_.file("text.jsonl"), out = folder_.file("out");
  for (const char* seed : {"-1", "18446744073709551616", "1.5", "x"}) {
    EXPECT_NE(run({"data", "build", text, "--output", out, "--seed", seed}), 0) << seed;
    EXPECT_NE(run({"data", "show", text, "--seed", seed}), 0) << seed;
  }
  expect_contains(message_of(ExitCode::config,
                             [&] {
                               run({"data", "build", text, "--output", ""});
                             }),
                  {"--output: the name is empty"});
  EXPECT_NE(run({"data"}), 0);
  message_of(ExitCode::data, [&] { run({"data", "show", folder_.file("nothing")}); });
}

}  // namespace
}  // namespace caravan
