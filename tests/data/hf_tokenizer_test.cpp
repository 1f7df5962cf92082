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

using HfTokenizer = TrainedVocabulary<training_sample, 2000>;

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

// SentencePiece's rule (the best score, then the leftmost) and the library's (the lowest rank, then
// the leftmost), when all splits of a piece have ranks one after the other.
class MergeRules {
 public:
  // Pieces in the order of falling score.
  explicit MergeRules(const std::vector<std::string>& pieces) {
    int next = 0;
    for (size_t i = 0; i < pieces.size(); ++i) {
      scores_[pieces[i]] = static_cast<int>(i);
      for (size_t left = pieces[i].size() - 1; left > 0; --left) {
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

// Words of two letters, and beginnings of them, in any order.
std::vector<std::string> random_pieces(GoldenRandom& random) {
  std::vector<std::string> pieces;
  for (uint64_t i = 4 + random.draw(10); i > 0; --i) {
    std::string word;
    for (uint64_t k = 2 + random.draw(5); k > 0; --k) word += "ab"[random.draw(2)];
    for (size_t k = word.size(); k > 1; k -= 1 + random.draw(2)) {
      const std::string piece = word.substr(0, k);
      const bool is_new = std::find(pieces.begin(), pieces.end(), piece) == pieces.end();
      if (is_new)
        pieces.insert(pieces.begin() + static_cast<std::ptrdiff_t>(random.draw(pieces.size() + 1)),
                      piece);
    }
  }
  return pieces;
}

TEST(MergeRules, RanksOfSplitsGiveWhatScoresGive) {
  GoldenRandom random(1);
  for (int round = 0; round < 400; ++round) {
    const MergeRules rules(random_pieces(random));
    for (int text_number = 0; text_number < 50; ++text_number) {
      std::string text;
      for (uint64_t i = 3 + random.draw(14); i > 0; --i) text += "ab"[random.draw(2)];
      ASSERT_EQ(rules.by_rank(text), rules.by_score(text)) << text;
    }
  }
  const MergeRules runs({"aa", "aaaa", "aaa", "aaaaaaaa", "aaaaaa", "aaaaa", "aaaaaaaaaaaa"});
  for (size_t length = 1; length <= 300; ++length) {
    const std::string run(length, 'a');
    ASSERT_EQ(runs.by_rank(run), runs.by_score(run)) << length;
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
