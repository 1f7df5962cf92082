#include "data/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "runtime/error.h"

namespace caravan {
namespace {

std::vector<int64_t> order(int64_t size, uint64_t seed, uint64_t epoch = 0) {
  const Permutation permutation(size, RandomStream(seed, RandomPurpose::test, epoch));
  std::vector<int64_t> result;
  for (int64_t i = 0; i < size; ++i) result.push_back(permutation[i]);
  return result;
}

TEST(Permutation, HasEachElementOnce) {
  for (const int64_t size : {1, 2, 3, 5, 16, 17, 255, 256, 257, 1000, 4096, 4097, 65537}) {
    const std::vector<int64_t> found = order(size, 7);
    const std::set<int64_t> distinct(found.begin(), found.end());
    EXPECT_EQ(std::ssize(distinct), size);
    EXPECT_EQ(*distinct.begin(), 0);
    EXPECT_EQ(*distinct.rbegin(), size - 1);
  }
}

TEST(Permutation, DependsOnSeedAndEpoch) {
  EXPECT_EQ(order(1000, 1, 2), order(1000, 1, 2));
  EXPECT_NE(order(1000, 1, 2), order(1000, 1, 3));
  EXPECT_NE(order(1000, 1, 2), order(1000, 2, 2));
}

// All six orders of three elements, each about as often as the others: chi-square with 5 degrees of
// freedom is beyond 25.7 once in 10,000 times.
TEST(Permutation, SmallOrdersAreEquallyLikely) {
  constexpr int kNumDraws = 6000;
  std::map<std::vector<int64_t>, int> counts;
  for (uint64_t epoch = 0; epoch < kNumDraws; ++epoch) ++counts[order(3, 5, epoch)];
  ASSERT_EQ(counts.size(), 6u);
  double chi_square = 0;
  for (const auto& [_, count] : counts) chi_square += std::pow(count - 1000.0, 2) / 1000.0;
  EXPECT_LT(chi_square, 25.7);
}

// Neighbours end up unrelated: of n elements about one keeps its successor, and the correlation of
// place and element is about 1 / sqrt(n).
TEST(Permutation, LeavesNoTraceOfTheOrder) {
  const std::vector<int64_t> found = order(10007, 3);
  int num_successors = 0;
  double covariance = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (i > 0 && found[i] == found[i - 1] + 1) ++num_successors;
    covariance += (static_cast<double>(i) - 5003) * (static_cast<double>(found[i]) - 5003);
  }
  const double variance = 10007.0 * (10007.0 * 10007.0 - 1) / 12;
  EXPECT_LT(num_successors, 8);
  EXPECT_LT(std::abs(covariance / variance), 0.04);
}

TEST(Permutation, WorksOnHugeDomains) {
  const int64_t size = (int64_t{1} << 60) + 12345;
  const Permutation permutation(size, RandomStream(1, RandomPurpose::test, 0));
  std::set<int64_t> found;
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t element = permutation[size - 1 - i];
    ASSERT_TRUE(element >= 0 && element < size);
    found.insert(element);
  }
  EXPECT_EQ(found.size(), 1000u);
}

TEST(Permutation, RefusesWhatIsOutside) {
  const RandomStream stream(1, RandomPurpose::test, 0);
  EXPECT_THROW(Permutation(0, stream), Error);
  EXPECT_THROW(Permutation(5, stream)[5], Error);
  EXPECT_THROW(Permutation(5, stream)[-1], Error);
}

}  // namespace
}  // namespace caravan
