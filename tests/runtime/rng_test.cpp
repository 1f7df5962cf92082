// Random numbers: the published answers of Philox, and the statistics of streams.
#include "runtime/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace caravan {
namespace {

using Words = std::array<uint32_t, 4>;

// The known answers that come with the authors' library (Random123, philox4x32 with 10 rounds).
TEST(Philox, GivesThePublishedAnswers) {
  constexpr uint32_t ff = 0xffffffff;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({ff, ff, ff, ff}, {ff, ff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(StableHash, IsFnv1a) {
  EXPECT_EQ(stable_hash(""), 0xcbf29ce484222325u);
  EXPECT_EQ(stable_hash("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(stable_hash("foobar"), 0x85944171f73967e8u);
}

TEST(RandomStream, DependsOnEveryPartOfItsKey) {
  std::set<uint64_t> first;
  for (const uint64_t seed : {uint64_t{1}, uint64_t{2}, uint64_t{1} << 32}) {
    for (const RandomPurpose purpose : {RandomPurpose::init, RandomPurpose::shuffle}) {
      for (const uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
        const RandomStream stream(seed, purpose, index);
        for (const uint64_t element : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
          EXPECT_TRUE(first.insert(stream.bits(element)).second);
        }
      }
    }
  }
}

TEST(RandomStream, HasTheMomentsItPromises) {
  constexpr int kCount = 100000;
  const RandomStream stream(3, RandomPurpose::test, 0);
  double uniform_sum = 0, sum = 0, squares = 0, fourth = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    const double u = stream.uniform(i), n = stream.normal(i);
    EXPECT_TRUE(u >= 0 && u < 1);
    uniform_sum += u;
    sum += n;
    squares += n * n;
    fourth += n * n * n * n;
  }
  // Five standard errors each.
  EXPECT_NEAR(uniform_sum / kCount, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  EXPECT_NEAR(sum / kCount, 0, 5 * std::sqrt(1.0 / kCount));
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(fourth / kCount, 3, 5 * std::sqrt(96.0 / kCount));
}

}  // namespace
}  // namespace caravan
