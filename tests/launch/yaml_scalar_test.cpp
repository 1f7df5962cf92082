// Numbers as people write them, and nothing that another reader would take for something else.
#include "launch/yaml.h"

#include <gtest/gtest.h>

#include <limits>

namespace caravan {
namespace {

TEST(YamlScalar, ReadsIntegers) {
  EXPECT_EQ(parse_integer("0"), 0);
  EXPECT_EQ(parse_integer("-7"), -7);
  EXPECT_EQ(parse_integer("+7"), 7);
  EXPECT_EQ(parse_integer("1_000_000"), 1'000'000);
  EXPECT_EQ(parse_integer("1e3"), 1000);
  EXPECT_EQ(parse_integer("1.5e3"), 1500);
  EXPECT_EQ(parse_integer("2.50e1"), 25);
  EXPECT_EQ(parse_integer("100e-2"), 1);
  EXPECT_EQ(parse_integer("0e5"), 0);
  EXPECT_EQ(parse_integer("9223372036854775807"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(parse_integer("-9223372036854775808"), std::numeric_limits<int64_t>::min());
}

TEST(YamlScalar, RefusesWhatIsNoInteger) {
  for (const char* text : {"",
                           "-",
                           "010",
                           "00",
                           "1.5",
                           "1.",
                           "1e-1",
                           "0x10",
                           "1__0",
                           "_1",
                           "1_",
                           "1e",
                           "1e+",
                           "1 ",
                           " 1",
                           "one",
                           "1e30",
                           "1e99999",
                           "9223372036854775808",
                           "--1",
                           "1e3e3",
                           "1,000",
                           "1.2.3"}) {
    EXPECT_EQ(parse_integer(text), std::nullopt) << text;
  }
}

TEST(YamlScalar, ReadsReals) {
  EXPECT_EQ(parse_real("1e-5"), 1e-5);
  EXPECT_EQ(parse_real("3E-04"), 3e-4);
  EXPECT_EQ(parse_real("-0.25"), -0.25);
  EXPECT_EQ(parse_real(".5"), 0.5);
  EXPECT_EQ(parse_real("1_000.5"), 1000.5);
  EXPECT_EQ(parse_real("7"), 7.0);
  EXPECT_EQ(parse_real("0.1"), 0.1);
}

TEST(YamlScalar, RefusesWhatIsNoReal) {
  for (const char* text : {"", ".", "nan", ".nan", "inf", ".inf", "1e400", "010", "010.5", "0x1p3",
                           "1e-5x", "1,5", "e5", "1._5"}) {
    EXPECT_EQ(parse_real(text), std::nullopt) << text;
  }
}

TEST(YamlScalar, ReadsBooleansInOneSpelling) {
  EXPECT_EQ(parse_boolean("true"), true);
  EXPECT_EQ(parse_boolean("false"), false);
  for (const char* text : {"yes", "no", "on", "True", "FALSE", "1", ""}) {
    EXPECT_EQ(parse_boolean(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace caravan
