#include "runtime/rng.h"

#include <cmath>
#include <numbers>

namespace caravan {
namespace {

// One Philox round; constants from the paper, table 2.
void round_once(std::array<uint32_t, 4>& c, const std::array<uint32_t, 2>& k) {
  const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
  const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
  c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
       static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
}

double to_unit(uint32_t high, uint32_t low) {  // 53 bits, [0, 1)
  const uint64_t bits = (uint64_t{high} << 32 | low) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    if (round > 0) key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
    round_once(counter, key);
  }
  return counter;
}

RandomStream::RandomStream(uint64_t seed, RandomPurpose purpose, uint64_t index)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)} {
  // The purpose and the index are mixed into the upper counter words by a block of their own, so
  // that streams of one seed never share a counter.
  const auto mixed = philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                             static_cast<uint32_t>(purpose), 0xCA7AFA2u},
                            key_);
  high_ = {mixed[0], mixed[1]};
}

uint64_t RandomStream::bits(uint64_t element) const {
  const auto r = philox(
      {static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32), high_[0], high_[1]},
      key_);
  return uint64_t{r[0]} << 32 | r[1];
}

double RandomStream::uniform(uint64_t element) const {
  const uint64_t b = bits(element);
  return to_unit(static_cast<uint32_t>(b >> 32), static_cast<uint32_t>(b));
}

double RandomStream::normal(uint64_t element) const {
  const auto r = philox(
      {static_cast<uint32_t>(element), static_cast<uint32_t>(element >> 32), high_[0], high_[1]},
      key_);
  const double radius = std::sqrt(-2.0 * std::log1p(-to_unit(r[0], r[1])));
  return radius * std::cos(2.0 * std::numbers::pi * to_unit(r[2], r[3]));
}

uint64_t stable_hash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace caravan
