#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int kNumRounds = 6;
// With fewer bits a half, six rounds reach too few of the possible orders of a small domain.
constexpr int kMinHalfBits = 4;

}  // namespace

Permutation::Permutation(int64_t size, RandomStream stream) : size_(size), stream_(stream) {
  check(size >= 1 && size <= int64_t{1} << 62, "permutation of %d elements", size);
  const int bits = std::bit_width(static_cast<uint64_t>(size - 1));
  half_bits_ = std::max((bits + 1) / 2, kMinHalfBits);
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_;
  uint64_t right = value & mask;
  for (uint64_t round = 0; round < kNumRounds; ++round) {
    const uint64_t mixed = left ^ (stream_.bits(round << 32 | right) & mask);
    left = right;
    right = mixed;
  }
  return left << half_bits_ | right;
}

int64_t Permutation::operator[](int64_t index) const {
  check(index >= 0 && index < size_, "permutation: element %d of %d", index, size_);
  uint64_t value = static_cast<uint64_t>(index);
  do value = encrypt(value);
  while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

}  // namespace caravan
