#include "launch/nearest_name.h"

#include <gtest/gtest.h>

namespace caravan {
namespace {

TEST(NearestName, CountsEdits) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("ab", "ba"), 1);  // a swap
  EXPECT_EQ(edit_distance("learning_rat", "learning_rate"), 1);
}

TEST(NearestName, FindsTheNearestOrNothing) {
  const std::vector<std::string> known = {"max_steps", "eval_steps", "seed"};
  EXPECT_EQ(nearest_name("max_step", known), "max_steps");
  EXPECT_EQ(nearest_name("evla_steps", known), "eval_steps");
  EXPECT_EQ(nearest_name("sed", known), "seed");
  EXPECT_EQ(nearest_name("optimizer", known), std::nullopt);
  EXPECT_EQ(nearest_name(std::string(1'000'000, 'a'), known), std::nullopt);
}

TEST(NearestName, MakesTextPrintable) {
  EXPECT_EQ(printable("a\nb"), "a?b");
  EXPECT_EQ(printable(std::string(100, 'x')), std::string(60, 'x') + "...");
}

}  // namespace
}  // namespace caravan
