// A SentencePiece vocabulary as Hugging Face's files: the export is what tests/golden holds, and
// what the library makes of that (make_tokenizers.py) is what we make of the vocabulary.
#include "data/hf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "data/sentencepiece_model.h"
#include "data/utf8.h"
#include "golden_text.h"
#include "support.h"
#include "tests/support/golden.h"

namespace caravan {
namespace {

// Mixed text with runs of spaces of all lengths and indented lines.
std::vector<std::string> training_sample() {
  const std::vector<std::string> pieces = read_golden_pieces();
  std::vector<std::string> sample;
  for (uint64_t block = 2000; block < 2006; ++block) {
    std::string text = golden_block(pieces, block);
    replace_invalid_utf8(text);
    GoldenRandom random(block);
    for (std::string_view rest = text; !rest.empty();) {
      const size_t size = line_cut(rest, 4096);
      sample.emplace_back(rest.substr(0, size));
      for (int line = 0; line < 8; ++line) {
        sample.back() += std::string(random.draw(40), ' ') + "if caravan: return ababa, xyxyx\n";
      }
      rest.remove_prefix(size);
    }
  }
  return sample;
}

class HfTokenizer : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new DataFolder;
    train_tokenizer(training_sample(), 2000, folder_->file("t.model"));
    tokenizer_ = new SentencePieceTokenizer(folder_->file("t.model"));
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    delete folder_;
  }
  static DataFolder* folder_;
  static SentencePieceTokenizer* tokenizer_;
};

DataFolder* HfTokenizer::folder_ = nullptr;
SentencePieceTokenizer* HfTokenizer::tokenizer_ = nullptr;

TEST_F(HfTokenizer, ExportIsTheGoldenOne) {
  const auto files = hf_tokenizer_files(*tokenizer_);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}) {
    ASSERT_TRUE(files.contains(name));
    expect_golden(std::string("tokenizers/exported/") + name, files.at(name));
  }
  EXPECT_EQ(files.at("tokenizer.model"), tokenizer_->serialized());
}

TEST_F(HfTokenizer, TheLibraryGivesOurIds) {
  std::ifstream file(golden_tokenizer_path("golden.json"));
  const nlohmann::json golden = nlohmann::json::parse(file)["tokenizers"]["exported"];
  const std::vector<std::string> pieces = read_golden_pieces();
  ASSERT_EQ(golden["plain"].size(), 160u);
  for (size_t i = 0; i < golden["plain"].size(); ++i) {
    // U+2581 is the one character of which the two think differently.
    std::string text = golden_block(pieces, i);
    replace_invalid_utf8(text);
    for (size_t at; (at = text.find("\xE2\x96\x81")) != std::string::npos;) text.erase(at, 3);
    const std::vector<int32_t> ids = tokenizer_->encode(text);
    EXPECT_EQ(golden["plain"][i][0], ids.size()) << i;
    EXPECT_EQ(golden["plain"][i][1], golden_checksum(ids)) << i;
    const std::vector<int32_t> special = tokenizer_->encode_with_special(text);
    EXPECT_EQ(golden["special"][i][0], special.size()) << i;
    EXPECT_EQ(golden["special"][i][1], golden_checksum(special)) << i;
  }
}

// SentencePiece's rule and the library's, on every string of two letters up to 14 of them and on
// runs up to 300: the ranks of all splits of a piece give what the leftmost pair first gives.
class MergeRules {
 public:
  // Pieces in the order of falling score.
  explicit MergeRules(const std::vector<std::string>& pieces) {
    int next = 0;
    for (size_t i = 0; i < pieces.size(); ++i) {
      scores_[pieces[i]] = static_cast<int>(i);
      std::vector<size_t> lefts;
      for (size_t left = 1; left < pieces[i].size(); ++left) lefts.push_back(left);
      for (const size_t left : order_of_splits(pieces[i], lefts)) {
        ranks_[{pieces[i].substr(0, left), pieces[i].substr(left)}] = next++;
      }
    }
  }
  using Symbols = std::vector<std::string>;
  Symbols by_score(const std::string& text) const {
    return merge(text, [&](const std::string& left, const std::string& right) {
      const auto found = scores_.find(left + right);
      return found == scores_.end() ? INT_MAX : found->second;
    });
  }
  Symbols by_rank(const std::string& text) const {
    return merge(text, [&](const std::string& left, const std::string& right) {
      const auto found = ranks_.find({left, right});
      return found == ranks_.end() ? INT_MAX : found->second;
    });
  }

 private:
  template <typename Order>
  static Symbols merge(const std::string& text, const Order& order) {
    Symbols symbols;
    for (const char c : text) symbols.emplace_back(1, c);
    while (true) {
      size_t best = 0;
      int lowest = INT_MAX;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const int rank = order(symbols[i], symbols[i + 1]);
        if (rank < lowest) {
          lowest = rank;
          best = i;
        }
      }
      if (lowest == INT_MAX) return symbols;
      symbols[best] += symbols[best + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }

  std::map<std::string, int> scores_;
  std::map<std::pair<std::string, std::string>, int> ranks_;
};

TEST(OrderOfSplits, GivesWhatTheLeftmostPairGives) {
  const std::vector<std::vector<std::string>> vocabularies = {
      {"ab", "ba", "aba", "bab", "abab", "baba", "ababa", "aa", "aaa", "bb"},
      {"ba", "ab", "aba", "aab", "baa", "abaab", "abaaba"},
      {"aa", "aaa", "aaaa", "aaaaa", "aaaaaaa", "aab", "aaab", "baa"},
      {"aa", "aaaa", "aaa", "aaaaaa", "aaaaa", "bb", "bbb", "aabb", "abba"}};
  for (const std::vector<std::string>& pieces : vocabularies) {
    const MergeRules rules(pieces);
    for (unsigned length = 1; length <= 12; ++length) {
      for (unsigned bits = 0; bits < 1u << length; ++bits) {
        std::string text;
        for (unsigned i = 0; i < length; ++i) text += (bits >> i & 1) != 0 ? 'b' : 'a';
        ASSERT_EQ(rules.by_rank(text), rules.by_score(text)) << text;
      }
    }
    for (size_t length = 1; length <= 300; ++length) {
      const std::string run(length, 'a');
      ASSERT_EQ(rules.by_rank(run), rules.by_score(run)) << length;
    }
  }
}

TEST_F(HfTokenizer, RefusesWhatItCannotExpress) {
  const auto refused = [](std::unordered_map<std::string, std::string> options, const char* why) {
    options.insert({{"vocab_size", "400"}, {"minloglevel", "4"}, {"hard_vocab_limit", "false"}});
    const std::string path =
        folder_->write("other.model", train_sentencepiece(options, training_sample()));
    expect_contains(
        message_of(ExitCode::data, [&] { hf_tokenizer_files(SentencePieceTokenizer(path)); }),
        {"other.model", why});
  };
  refused({{"model_type", "unigram"}, {"vocab_size", "1500"}}, "no BPE");
  refused({{"model_type", "bpe"}, {"vocab_size", "1500"}}, "no bytes");
  refused({{"model_type", "bpe"}, {"vocab_size", "1500"}, {"byte_fallback", "true"}},
          "changes text");
}

}  // namespace
}  // namespace caravan
