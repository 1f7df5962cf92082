// Which source each sample of a mixture comes from, and the how-manieth of that source it is: a
// function of (seed, sample), in a time that does not depend on the sample. Knows no data.
//
// Samples come in blocks of kBlock; in each block a source has a fixed number of samples (its share
// of the block, by largest remainder; at least one), in an order that is drawn anew for each block.
// So shares are exact over whole blocks, accurate to 1/kBlock, and never drift. Within a block a
// source is not walked strictly in order: two of its epochs may mix inside one block.
// Immutable: any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace caravan {

struct MixtureSlot {
  int source = 0;
  int64_t index = 0;  // counts the samples of this source from 0, over all epochs

  bool operator==(const MixtureSlot&) const = default;
};

class Mixture {
 public:
  static constexpr int64_t kBlock = 4096;

  // Weights are relative, > 0 and finite (config_error otherwise); at most kBlock of them.
  Mixture(std::span<const double> weights, uint64_t seed);

  MixtureSlot slot(int64_t sample) const;
  int64_t samples_per_block(int source) const;

 private:
  uint64_t seed_;
  std::vector<int64_t> begins_;  // of each source in a block; one more at the end, kBlock
};

}  // namespace caravan
