#include "data/build.h"

#include <fcntl.h>
#include <sys/file.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "data/sampler.h"
#include "data/tokenizer.h"
#include "golden_text.h"
#include "runtime/rng.h"
#include "support.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string made_up_text(uint64_t seed, int num_lines) {
  const std::vector<std::string> words = {"sand", "camel", "rests", "river", "long",
                                          "the",  "night", "walks", "salt",  "under"};
  const RandomStream random(seed, RandomPurpose::test, 0);
  std::string text;
  for (int line = 0; line < num_lines; ++line) {
    for (int word = 0; word < 9; ++word) {
      text += words[random.bits(static_cast<uint64_t>(line * 9 + word)) % 10] + " ";
    }
    text += ".\n";
  }
  return text;
}

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class Build : public testing::Test {
 protected:
  BuildOptions options(const std::string& output = "out") const {
    BuildOptions result;
    result.inputs = {folder_.file("text")};
    result.output = folder_.file(output);
    result.vocab_size = 320;
    result.validation_fraction = 0.1;
    return result;
  }
  // Returns the documents.
  std::vector<std::string> write_documents(int count) const {
    std::vector<std::string> documents;
    for (int i = 0; i < count; ++i) {
      documents.push_back("document " + std::to_string(i) + "\n" +
                          made_up_text(static_cast<uint64_t>(i), 10));
      folder_.write(absl::StrFormat("text/%04d.txt", i), documents.back());
    }
    return documents;
  }
  static BuildReport build(const BuildOptions& options) {
    return build_token_files(options, [](const BuildProgress&) {});
  }
  static std::vector<int32_t> tokens_of(const std::string& folder, const std::string& split) {
    const Hdf5TokenFile file(token_file_path(folder, split));
    std::vector<int32_t> tokens(static_cast<size_t>(file.num_tokens()));
    file.read(0, tokens);
    EXPECT_GT(tokens.size(), 100u);
    return tokens;
  }
  static std::vector<std::string> decoded(const std::string& folder, const std::string& split) {
    const Hdf5TokenFile file(token_file_path(folder, split));
    const std::unique_ptr<Tokenizer> opened = open_tokenizer(folder);
    const Tokenizer& tokenizer = *opened;
    std::vector<std::string> documents;
    for (int64_t d = 0; d < file.num_documents(); ++d) {
      const int64_t begin = file.document_begin(d);
      std::vector<int32_t> tokens(static_cast<size_t>(file.document_begin(d + 1) - begin));
      file.read(begin, tokens);
      EXPECT_EQ(tokens.front(), tokenizer.bos_id());
      EXPECT_EQ(tokens.back(), tokenizer.eos_id());
      documents.push_back(tokenizer.decode(tokens));
    }
    return documents;
  }

  DataFolder folder_;
};

TEST_F(Build, EveryDocumentIsInOneSplitAsItWas) {
  const std::vector<std::string> documents = write_documents(120);
  const BuildReport report = build(options());
  std::vector<std::string> train;
  std::vector<std::string> validation;
  for (size_t i = 0; i < documents.size(); ++i) {
    (is_held_out(static_cast<int64_t>(i), 0.1, 1) ? validation : train).push_back(documents[i]);
  }
  EXPECT_EQ(decoded(folder_.file("out"), "train"), train);
  EXPECT_EQ(decoded(folder_.file("out"), "validation"), validation);
  EXPECT_EQ(report.train.num_documents, std::ssize(train));
  EXPECT_FALSE(report.few_documents);
  EXPECT_GT(report.bytes_per_token(), 2);
}

TEST_F(Build, DescribesItself) {
  write_documents(60);
  const BuildReport report = build(options());
  const auto json = nlohmann::json::parse(content(folder_.file("out/data.json")));
  EXPECT_EQ(json["documents"], 60);
  EXPECT_EQ(json["files"], 60);
  EXPECT_EQ(json["train"]["tokens"], report.train.num_tokens);
  EXPECT_EQ(json["sources"][0], folder_.file("text"));
  const Hdf5TokenFile file(folder_.file("out/train.h5"));
  EXPECT_EQ(json["tokenizer_hash"], file.vocabulary().tokenizer_hash);
  EXPECT_EQ(file.num_tokens(), report.train.num_tokens);
}

TEST_F(Build, IsDeterministic) {
  write_documents(60);
  build(options("a"));
  build(options("b"));
  EXPECT_TRUE(content(folder_.file("a/tokenizer.model")) ==
              content(folder_.file("b/tokenizer.model")));
  for (const char* split : {"train", "validation"}) {
    EXPECT_EQ(tokens_of(folder_.file("a"), split), tokens_of(folder_.file("b"), split));
  }
}

TEST_F(Build, HeldOutShareIsThatAskedFor) {
  int64_t count = 0;
  int64_t different = 0;
  for (int64_t i = 0; i < 20000; ++i) {
    count += is_held_out(i, 0.05, 1) ? 1 : 0;
    different += is_held_out(i, 0.05, 1) != is_held_out(i, 0.05, 2) ? 1 : 0;
    EXPECT_TRUE(!is_held_out(i, 0.05, 1) || is_held_out(i, 0.1, 1));
  }
  EXPECT_NEAR(count, 1000, 120);
  EXPECT_GT(different, 1000);
}

TEST_F(Build, OneBookIsCutToHoldSomeOut) {
  const std::string book = made_up_text(1, 3000);
  folder_.write("text/book.txt", book);
  const BuildReport report = build(options());
  EXPECT_TRUE(report.few_documents);
  EXPECT_GT(report.validation.num_documents, 0);
  EXPECT_EQ(report.text.num_bytes, std::ssize(book));
  BuildOptions whole = options("whole");
  whole.validation_fraction = 0;
  EXPECT_EQ(build(whole).train.num_documents, 1);
  EXPECT_FALSE(fs::exists(folder_.file("whole/validation.h5")));
  EXPECT_EQ(decoded(folder_.file("whole"), "train"), std::vector<std::string>{book});
}

TEST_F(Build, UsesAGivenTokenizer) {
  write_documents(60);
  build(options("a"));
  BuildOptions given = options("b");
  given.tokenizer = folder_.file("a/tokenizer.model");
  build(given);
  EXPECT_EQ(tokens_of(folder_.file("a"), "train"), tokens_of(folder_.file("b"), "train"));
  given.output = folder_.file("c");
  given.tokenizer = folder_.write("bad.model", "nonsense");
  expect_contains(message_of(ExitCode::data, [&] { build(given); }), {"bad.model"});
}

// A folder as it comes from elsewhere: the tokenizer lies in the new folder, whole.
TEST_F(Build, UsesAByteLevelTokenizer) {
  const std::vector<std::string> documents = write_documents(60);
  BuildOptions given = options("a");
  given.tokenizer = golden_tokenizer_path("llama3");
  const BuildReport report = build(given);
  const std::unique_ptr<Tokenizer> source = open_tokenizer(given.tokenizer);
  EXPECT_EQ(report.vocab_size, source->vocab_size());
  EXPECT_EQ(content(folder_.file("a/tokenizer.json")), content(source->path()));
  EXPECT_TRUE(fs::exists(folder_.file("a/tokenizer_config.json")));
  EXPECT_FALSE(fs::exists(folder_.file("a/tokenizer.model")));
  std::vector<std::string> both = decoded(folder_.file("a"), "train");
  for (const std::string& document : decoded(folder_.file("a"), "validation")) {
    both.push_back(document);
  }
  EXPECT_TRUE(std::is_permutation(both.begin(), both.end(), documents.begin(), documents.end()));
  BuildOptions again = options("b");  // a data folder is a folder with a tokenizer
  again.tokenizer = folder_.file("a");
  build(again);
  EXPECT_EQ(tokens_of(folder_.file("a"), "train"), tokens_of(folder_.file("b"), "train"));
}

TEST_F(Build, TextCannotForgeTheEndOfADocument) {
  folder_.write("text/a.txt", "one<|end_of_text|>two <|begin_of_text|>" + made_up_text(1, 900));
  BuildOptions given = options("a");
  given.tokenizer = golden_tokenizer_path("llama3");
  given.validation_fraction = 0;
  EXPECT_EQ(build(given).train.num_documents, 1);
  EXPECT_EQ(decoded(folder_.file("a"), "train")[0].find("one<|end_of_text|>two <|begin"), 0u);
}

TEST_F(Build, AsksForTheEndOfDocuments) {
  write_documents(60);
  fs::copy(golden_tokenizer_path("llama3") + "/tokenizer.json", folder_.file("tokenizer.json"));
  BuildOptions given = options("a");
  given.tokenizer = folder_.file("tokenizer.json");
  expect_contains(message_of(ExitCode::data, [&] { build(given); }),
                  {"tokenizer.json", "--eos-token TEXT"});
  given.eos_token = "<none>";
  expect_contains(message_of(ExitCode::data, [&] { build(given); }), {"--eos-token", "'<none>'"});
  given.eos_token = "\xC4\xA0the";
  expect_contains(message_of(ExitCode::data, [&] { build(given); }),
                  {"the'", "occurs in the text", "--eos-token"});
  EXPECT_FALSE(fs::exists(folder_.file("a")));
  given.eos_token = "<|eot_id|>";
  build(given);
  const Hdf5TokenFile file(folder_.file("a/train.h5"));
  EXPECT_EQ(file.vocabulary().eos_id, open_tokenizer(given.tokenizer)->token_id("<|eot_id|>"));
}

// GPT-2: bos and eos are one token, so that documents have no bos.
TEST_F(Build, ABosThatIsTheEosIsLeftOut) {
  write_documents(60);
  BuildOptions given = options("a");
  given.tokenizer = golden_tokenizer_path("gpt2");
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(given.tokenizer);
  ASSERT_EQ(tokenizer->bos_id(), tokenizer->eos_id());
  build(given);
  const Hdf5TokenFile file(folder_.file("a/train.h5"));
  EXPECT_EQ(file.vocabulary().bos_id, -1);
  EXPECT_EQ(file.vocabulary().eos_id, tokenizer->eos_id());
  EXPECT_NE(tokens_of(folder_.file("a"), "train").front(), tokenizer->eos_id());
  given.tokenizer = golden_tokenizer_path("llama3");
  given.output = folder_.file("b");
  given.eos_token = "<|begin_of_text|>";
  build(given);
  EXPECT_EQ(Hdf5TokenFile(folder_.file("b/train.h5")).vocabulary().bos_id, -1);
}

TEST_F(Build, TheCopyOfTheTokenizerKeepsTheEosThatWasAskedFor) {
  write_documents(60);
  BuildOptions given = options("a");
  given.tokenizer = golden_tokenizer_path("llama3");
  given.eos_token = "<|eot_id|>";
  build(given);
  const auto before = nlohmann::json::parse(content(given.tokenizer + "/tokenizer_config.json"));
  const auto after = nlohmann::json::parse(content(folder_.file("a/tokenizer_config.json")));
  EXPECT_EQ(after["eos_token"], "<|eot_id|>");
  EXPECT_EQ(after["bos_token"], before["bos_token"]);
  const std::unique_ptr<Tokenizer> copy = open_tokenizer(folder_.file("a"));
  EXPECT_EQ(copy->piece(copy->eos_id()), "<|eot_id|>");
  fs::copy(given.tokenizer + "/tokenizer.json", folder_.file("alone.json"));  // no config beside it
  given.tokenizer = folder_.file("alone.json");
  given.output = folder_.file("b");
  build(given);
  EXPECT_EQ(open_tokenizer(folder_.file("b"))->eos_id(), copy->eos_id());
}

// Thousands of documents that each take long: the first error ends the build.
TEST_F(Build, ARunawayPatternEndsItAndNamesTheFileThatWasGiven) {
  std::string lines;
  for (int line = 0; line < 300; ++line) lines += "{\"text\": \"" + std::string(300, 'x') + "\"}\n";
  folder_.write("text/a.jsonl", lines);
  auto json = nlohmann::json::parse(content(golden_tokenizer_path("gpt2") + "/tokenizer.json"));
  json["pre_tokenizer"] = nlohmann::json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "(?:x+)+\\d"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
       "use_regex": false}]})");
  BuildOptions given = options("a");
  given.tokenizer = folder_.write("mine.json", json.dump());
  given.eos_token = "<|endoftext|>";
  const std::clock_t begin = std::clock();
  const std::string message = message_of(ExitCode::data, [&] { build(given); });
  EXPECT_LT((std::clock() - begin) / CLOCKS_PER_SEC, 60);
  expect_contains(message, {folder_.file("mine.json") + ": pre_tokenizer", "takes too much time"});
}

TEST_F(Build, AFailedBuildLeavesNothing) {
  write_documents(20);
  folder_.write("text/z.jsonl", "{\"text\": \"fine\"}\nnot json\n");
  expect_contains(message_of(ExitCode::data, [&] { build(options()); }), {"z.jsonl:2"});
  EXPECT_EQ(folder_.names(), std::vector<std::string>{"text"});
}

TEST_F(Build, ClearsWhatAKilledBuildLeft) {
  write_documents(60);
  folder_.write("out.partial/train.h5.tokens.tmp", "old");
  folder_.write("out.partial/other", "old");
  build(options());
  EXPECT_FALSE(fs::exists(folder_.file("out.partial")));
  EXPECT_FALSE(fs::exists(folder_.file("out/other")));
}

TEST_F(Build, TwoBuildsOfOneOutputDoNotMix) {
  write_documents(60);
  fs::create_directory(folder_.file("out.partial"));
  const int other = ::open(folder_.file("out.partial").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(other, LOCK_EX | LOCK_NB), 0);
  expect_contains(message_of(ExitCode::config, [&] { build(options()); }),
                  {"another process is writing"});
  ::close(other);
  build(options());
}

TEST_F(Build, SaysWhatIsWrong) {
  write_documents(20);
  const auto message = [&](ExitCode code, const std::function<void(BuildOptions&)>& change) {
    BuildOptions changed = options();
    change(changed);
    return message_of(code, [&] { build(changed); });
  };
  expect_contains(message(ExitCode::config, [](BuildOptions& o) { o.vocab_size = 100; }),
                  {"--vocab-size: 100"});
  expect_contains(message(ExitCode::data, [](BuildOptions& o) { o.vocab_size = 50000; }),
                  {"vocabulary of 50000", "--vocab-size"});
  expect_contains(message(ExitCode::config, [](BuildOptions& o) { o.validation_fraction = 1; }),
                  {"--validation-fraction: 1"});
  expect_contains(message(ExitCode::data, [](BuildOptions& o) { o.validation_fraction = 1e-9; }),
                  {"--validation-fraction", "held out"});
  expect_contains(message(ExitCode::config, [&](BuildOptions& o) { o.output = folder_.path(); }),
                  {"--output", "exists already"});
  expect_contains(message(ExitCode::config, [](BuildOptions& o) { o.output = "/proc/none/out"; }),
                  {"--output", "cannot write"});
  expect_contains(message(ExitCode::data, [&](BuildOptions& o) { o.inputs = {"/nowhere"}; }),
                  {"/nowhere"});
  folder_.write("blank/a.txt", " \n");
  expect_contains(
      message(ExitCode::data, [&](BuildOptions& o) { o.inputs = {folder_.file("blank")}; }),
      {"white space"});
}

}  // namespace
}  // namespace caravan
