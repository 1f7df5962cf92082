// Ids of our tokenizers against those of Hugging Face's `tokenizers`, token for token: on 10 MB of
// mixed text, and on every assigned character in several surroundings. Made by
// tests/golden/make_tokenizers.py.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "data/tokenizer.h"
#include "data/utf8.h"
#include "golden_text.h"
#include "support.h"

namespace caravan {
namespace {

constexpr size_t kCodePointsPerBlock = 1024;

nlohmann::json read_golden() {
  std::ifstream file(golden_tokenizer_path("golden.json"));
  return nlohmann::json::parse(file);
}

void append_utf8(uint32_t code, std::string& text) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | code >> 12);
    tail(6), tail(0);
  } else {
    text += static_cast<char>(0xF0 | code >> 18);
    tail(12), tail(6), tail(0);
  }
}

// Whether PCRE2's Unicode has the character, and it is neither private nor a surrogate.
class Assigned {
 public:
  Assigned() {
    int error = 0;
    PCRE2_SIZE offset = 0;
    const std::string pattern = R"([^\p{Cn}\p{Co}\p{Cs}])";
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
    data_ = pcre2_match_data_create(1, nullptr);
  }
  ~Assigned() {
    pcre2_match_data_free(data_);
    pcre2_code_free(code_);
  }
  bool operator()(const std::string& character) const {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(character.data()), character.size(), 0,
                       0, data_, nullptr) > 0;
  }

 private:
  pcre2_code* code_;
  pcre2_match_data* data_;
};

bool is_private(uint32_t code) {
  return (code >= 0xE000 && code <= 0xF8FF) || (code >= 0xF0000 && (code & 0xFFFF) <= 0xFFFD);
}

std::vector<std::string> code_points() {
  const Assigned assigned;
  std::vector<std::string> found;
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string character;
    append_utf8(code, character);
    if (is_private(code) ? code % 256 == 0 : assigned(character)) found.push_back(character);
  }
  return found;
}

std::vector<std::string> code_point_blocks(const std::vector<std::string>& characters) {
  std::vector<std::string> blocks;
  for (size_t i = 0; i < characters.size(); ++i) {
    if (i % kCodePointsPerBlock == 0) blocks.emplace_back();
    const std::string& c = characters[i];
    blocks.back() +=
        "a" + c + "b " + c + c + "1" + c + "2\n" + c + " \t" + c + "'" + c + "s'" + c + "\n";
  }
  return blocks;
}

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  void expect_same(const char* key, const std::vector<std::string>& blocks) const {
    const nlohmann::json& expected = golden_["tokenizers"][GetParam()][key];
    ASSERT_EQ(expected.size(), blocks.size());
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::vector<int32_t> ids = key == std::string("special")
                                           ? tokenizer_->encode_with_special(blocks[i])
                                           : tokenizer_->encode(blocks[i]);
      EXPECT_EQ(expected[i][0], ids.size()) << key << ", block " << i;
      EXPECT_EQ(expected[i][1], golden_checksum(ids)) << key << ", block " << i;
    }
  }
  static std::vector<std::string> mixed_blocks(size_t count) {
    const std::vector<std::string> pieces = read_golden_pieces();
    std::vector<std::string> blocks;
    for (size_t i = 0; i < count; ++i) blocks.push_back(golden_block(pieces, i));
    return blocks;
  }

  nlohmann::json golden_ = read_golden();
  std::unique_ptr<Tokenizer> tokenizer_ = open_tokenizer(golden_tokenizer_path(GetParam()));
};

TEST_P(TokenizerGolden, MixedTextHasTheSameIds) {
  const nlohmann::json& expected = golden_["tokenizers"][GetParam()];
  const std::vector<std::string> blocks = mixed_blocks(expected["plain"].size());
  size_t num_bytes = 0;
  for (const std::string& block : blocks) num_bytes += block.size();
  ASSERT_EQ(num_bytes, golden_["bytes"]);
  ASSERT_GT(num_bytes, 10'000'000u);
  expect_same("plain", blocks);
  expect_same("special", blocks);
}

TEST_P(TokenizerGolden, EveryAssignedCharacterHasTheSameIds) {
  const std::vector<std::string> characters = code_points();
  ASSERT_EQ(characters.size(), golden_["num_code_points"]);
  expect_same("code_points", code_point_blocks(characters));
}

TEST_P(TokenizerGolden, PrefixAndSuffixAreThoseOfThePostProcessor) {
  std::vector<int32_t> ids(tokenizer_->prefix_ids().begin(), tokenizer_->prefix_ids().end());
  tokenizer_->encode_with_special("a b", ids);
  ids.insert(ids.end(), tokenizer_->suffix_ids().begin(), tokenizer_->suffix_ids().end());
  EXPECT_EQ(golden_["tokenizers"][GetParam()]["with_prefix"], ids);
}

TEST_P(TokenizerGolden, DecodesWhatItEncoded) {
  for (std::string& block : mixed_blocks(8)) {
    replace_invalid_utf8(block);
    const std::vector<int32_t> ids = tokenizer_->encode(block);
    // White space that an added token takes with it is lost.
    if (GetParam() != std::string("llama4")) {
      EXPECT_EQ(tokenizer_->decode(ids), block);
    }
    EXPECT_GE(tokenizer_->eos_id(), 0);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), tokenizer_->eos_id()), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden,
                         testing::Values("gpt2", "llama3", "llama4", "deepseek"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace caravan
