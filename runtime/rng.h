// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC'11). A value is a pure function of (seed, purpose, step, element), so it depends
// neither on the number of ranks nor on what was drawn before, and a checkpoint stores no state.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace caravan {

// What a stream of random numbers is for; values are part of the meaning of a seed: never renumber.
enum class RandomPurpose : uint32_t { init = 1, shuffle = 2, mixture = 3, dropout = 4, test = 5 };

// Four independent 32-bit words for one counter.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A stream keyed by (seed, purpose, index): index is the step, the epoch or a tensor's name hash.
class RandomStream {
 public:
  RandomStream(uint64_t seed, RandomPurpose purpose, uint64_t index);

  uint64_t bits(uint64_t element) const;   // 64 random bits
  double uniform(uint64_t element) const;  // [0, 1)
  double normal(uint64_t element) const;   // mean 0, variance 1 (Box-Muller, one value per element)

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 2> high_;  // counter words 2 and 3
};

// FNV-1a, 64 bits: a stable hash of a name, the same on every machine.
uint64_t stable_hash(std::string_view text);

}  // namespace caravan
