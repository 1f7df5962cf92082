#include "data/mixture.h"

#include <cmath>
#include <set>

#include "support.h"

namespace caravan {
namespace {

TEST(Mixture, OneSourceIsNotReordered) {
  const Mixture mixture(std::vector<double>{3.5}, 1);
  for (const int64_t sample : {int64_t{0}, int64_t{1}, int64_t{1} << 40}) {
    EXPECT_EQ(mixture.slot(sample), (MixtureSlot{0, sample}));
  }
}

TEST(Mixture, SharesAreThoseOfTheWeights) {
  const std::vector<double> weights = {0.5, 2, 1, 0.25};
  const Mixture mixture(weights, 1);
  std::vector<int64_t> counts(4, 0);
  for (int64_t i = 0; i < 3 * Mixture::kBlock; ++i) {
    ++counts[static_cast<size_t>(mixture.slot(i).source)];
    if (i < 1000) continue;  // from then on, shares hold at any place, not only at block ends
    for (size_t s = 0; s < 4; ++s) {
      const double share = static_cast<double>(counts[s]) / static_cast<double>(i + 1);
      ASSERT_NEAR(share, weights[s] / 3.75, 0.06) << i;
    }
  }
  for (size_t s = 0; s < 4; ++s) {
    EXPECT_NEAR(static_cast<double>(counts[s]) / 3 / Mixture::kBlock, weights[s] / 3.75,
                1.0 / Mixture::kBlock);
    EXPECT_EQ(counts[s], 3 * mixture.samples_per_block(static_cast<int>(s)));
  }
}

// After whole blocks each source has given its samples 0 .. n - 1, each once.
TEST(Mixture, EachSampleOfASourceOnce) {
  const Mixture mixture(std::vector<double>{1, 10, 0.3}, 9);
  std::vector<std::set<int64_t>> seen(3);
  for (int64_t i = 0; i < 2 * Mixture::kBlock; ++i) {
    const MixtureSlot slot = mixture.slot(i);
    EXPECT_TRUE(seen[static_cast<size_t>(slot.source)].insert(slot.index).second);
  }
  for (const auto& indices : seen) EXPECT_EQ(*indices.rbegin(), std::ssize(indices) - 1);
}

TEST(Mixture, IsAFunctionOfSeedAndSample) {
  const std::vector<double> weights = {1, 1};
  const Mixture mixture(weights, 1);
  EXPECT_EQ(mixture.slot(12345), Mixture(weights, 1).slot(12345));
  int num_equal = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    num_equal += mixture.slot(i).source == Mixture(weights, 2).slot(i).source ? 1 : 0;
  }
  EXPECT_NEAR(num_equal, 500, 100);
}

TEST(Mixture, ExtremeWeightsKeepEverySource) {
  const Mixture tiny(std::vector<double>{1, 1e-12, 1e-300}, 1);
  EXPECT_EQ(tiny.samples_per_block(1), 1);
  EXPECT_EQ(tiny.samples_per_block(2), 1);
  EXPECT_EQ(tiny.samples_per_block(0), Mixture::kBlock - 2);
  const Mixture huge(std::vector<double>{1e308, 1e308}, 1);
  EXPECT_EQ(huge.samples_per_block(0), Mixture::kBlock / 2);
  const Mixture many(std::vector<double>(4000, 1.0), 1);
  int64_t total = 0;
  for (int s = 0; s < 4000; ++s) total += many.samples_per_block(s);
  EXPECT_EQ(total, Mixture::kBlock);
}

TEST(Mixture, RefusesBadWeights) {
  for (const double bad : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    const std::string message = message_of(ExitCode::config, [&] {
      Mixture(std::vector<double>{1, bad}, 1);
    });
    expect_contains(message, {"data.train[1].weight", "positive"});
  }
}

}  // namespace
}  // namespace caravan
