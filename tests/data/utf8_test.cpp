#include "data/utf8.h"

#include <gtest/gtest.h>

#include "runtime/rng.h"

namespace caravan {
namespace {

constexpr char kReplaced[] = "\xEF\xBF\xBD";

TEST(Utf8, KeepsWhatIsValid) {
  std::string text = "a\tb\n\xC3\xA9 \xE6\xBC\xA2 \xF0\x9F\x99\x82 \xF4\x8F\xBF\xBF";
  text.push_back('\0');
  const std::string before = text;
  EXPECT_EQ(replace_invalid_utf8(text), 0);
  EXPECT_EQ(text, before);
}

// The Unicode standard's own example (section 3.9, tables 3-8 and 3-11).
TEST(Utf8, ReplacesMaximalSubparts) {
  const std::string r = kReplaced;
  std::string text = "\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64";
  EXPECT_EQ(replace_invalid_utf8(text), 6);
  EXPECT_EQ(text, "a" + r + r + r + "b" + r + "c" + r + r + "d");

  std::string truncated = "\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41";
  EXPECT_EQ(replace_invalid_utf8(truncated), 4);
  EXPECT_EQ(truncated, r + r + r + r + "A");
}

TEST(Utf8, RefusesOverlongFormsSurrogatesAndBeyond) {
  for (const char* bad : {"\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE0\x80\x80"}) {
    std::string text = bad;
    EXPECT_EQ(replace_invalid_utf8(text), static_cast<int64_t>(std::string(bad).size())) << bad;
  }
}

TEST(Utf8, RandomBytesBecomeValid) {
  const RandomStream random(1, RandomPurpose::test, 0);
  uint64_t element = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 24; ++i) text.push_back(static_cast<char>(random.bits(element++)));
    replace_invalid_utf8(text);
    EXPECT_EQ(replace_invalid_utf8(text), 0);  // a second time finds nothing
  }
}

TEST(Utf8, CutsAtLinesElseBetweenCharacters) {
  EXPECT_EQ(line_cut("abc", 4), 3u);
  EXPECT_EQ(line_cut("ab\ncd\nefgh", 7), 6u);
  EXPECT_EQ(line_cut("ab\ncd\nefgh", 6), 6u);
  EXPECT_EQ(line_cut("abcdefgh", 5), 5u);
  EXPECT_EQ(line_cut("abcd\xF0\x9F\x99\x82", 7), 4u);
  EXPECT_EQ(line_cut("\xF0\x9F\x99\x82\xF0\x9F\x99\x82", 7), 4u);
}

}  // namespace
}  // namespace caravan
