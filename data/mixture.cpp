#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "data/permutation.h"
#include "runtime/error.h"

namespace caravan {
namespace {

void check_weights(std::span<const double> weights) {
  check(!weights.empty() && std::ssize(weights) <= Mixture::kBlock, "mixture of %d sources",
        weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    if (std::isfinite(weights[i]) && weights[i] > 0) continue;
    throw config_error(absl::StrFormat(
        "data.train[%d].weight: %g is not a positive number; leave the source out instead", i,
        weights[i]));
  }
}

// Samples of each source in a block: one for each, the rest by largest remainder.
std::vector<int64_t> quotas(std::span<const double> weights) {
  // Divided by the largest first: the sum of huge weights would overflow.
  const double largest = *std::max_element(weights.begin(), weights.end());
  double total = 0;
  for (const double weight : weights) total += weight / largest;
  const auto spare = static_cast<double>(Mixture::kBlock);
  std::vector<int64_t> counts;
  std::vector<double> remainders;
  for (const double weight : weights) {
    const double exact = weight / largest / total * spare;
    counts.push_back(std::max<int64_t>(1, static_cast<int64_t>(exact)));
    remainders.push_back(exact - static_cast<double>(counts.back()));
  }
  int64_t missing = Mixture::kBlock - std::accumulate(counts.begin(), counts.end(), int64_t{0});
  for (; missing != 0; missing -= missing > 0 ? 1 : -1) {
    // Too few: the one furthest below its exact share gains; too many: the one furthest above
    // loses, but never its last sample.
    size_t chosen = 0;
    double best = -INFINITY;
    for (size_t i = 0; i < counts.size(); ++i) {
      const double gain = missing > 0 ? remainders[i] : -remainders[i];
      if (gain > best && (missing > 0 || counts[i] > 1)) best = gain, chosen = i;
    }
    const int change = missing > 0 ? 1 : -1;
    counts[chosen] += change;
    remainders[chosen] -= change;
  }
  return counts;
}

}  // namespace

Mixture::Mixture(std::span<const double> weights, uint64_t seed) : seed_(seed) {
  check_weights(weights);
  begins_ = {0};
  for (const int64_t count : quotas(weights)) begins_.push_back(begins_.back() + count);
}

MixtureSlot Mixture::slot(int64_t sample) const {
  check(sample >= 0, "mixture: sample %d", sample);
  if (begins_.size() == 2) return {0, sample};
  const int64_t block = sample / kBlock;
  const RandomStream stream(seed_, RandomPurpose::mixture, static_cast<uint64_t>(block));
  const int64_t place = Permutation(kBlock, stream)[sample % kBlock];
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), place);
  const auto source = static_cast<int>(after - begins_.begin()) - 1;
  const int64_t begin = begins_[static_cast<size_t>(source)];
  return {source, block * samples_per_block(source) + place - begin};
}

int64_t Mixture::samples_per_block(int source) const {
  const auto at = static_cast<size_t>(source);
  return begins_[at + 1] - begins_[at];
}

}  // namespace caravan
