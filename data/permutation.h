// A random order of [0, size) that is computed, not stored: element i of the order is a function of
// (stream, i), so any place in the order is reached at once and nothing has to be kept or saved.
//
// A Feistel network over the next even power of two, keyed by a RandomStream; what falls outside
// the domain is sent through again until it lands inside ("cycle walking": Black and Rogaway,
// "Ciphers with arbitrary finite domains", CT-RSA 2002). On average under four walks for sizes
// from 64 on. Immutable: any thread.
#pragma once

#include <cstdint>

#include "runtime/rng.h"

namespace caravan {

class Permutation {
 public:
  Permutation(int64_t size, RandomStream stream);  // 1 <= size <= 2^62

  int64_t size() const { return size_; }
  int64_t operator[](int64_t index) const;  // index in [0, size): so is the result, each once

 private:
  uint64_t encrypt(uint64_t value) const;

  int64_t size_;
  int half_bits_;
  RandomStream stream_;
};

}  // namespace caravan
