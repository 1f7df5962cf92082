// Prints random numbers of runtime/rng.h for comparison with `python philox.py` (see README.md).
// Not part of the build: it is compiled by hand when either side changes.
#include <bit>
#include <cstdint>
#include <cstdio>

#include "runtime/rng.h"

using namespace caravan;

namespace {

void print_stream(const RandomStream& stream) {
  constexpr uint64_t elements[] = {0, 1, 2, 7, 1000, 0xFFFFFFFF, 1ull << 32, (1ull << 40) + 5};
  for (const uint64_t e : elements) {
    const auto normal = std::bit_cast<uint32_t>(static_cast<float>(stream.normal(e)));
    const double uniform = stream.uniform(e);
    std::printf("%016llx %016llx %08x\n", static_cast<unsigned long long>(stream.bits(e)),
                static_cast<unsigned long long>(std::bit_cast<uint64_t>(uniform)), normal);
  }
}

}  // namespace

int main() {
  constexpr const char* names[] = {"model.embed_tokens.weight",
                                   "model.layers.5.mlp.down_proj.weight", ""};
  constexpr uint64_t seeds[] = {1, 1234, (1ull << 33) + 17};
  for (const char* name : names) {
    std::printf("%s %016llx\n", name, static_cast<unsigned long long>(stable_hash(name)));
    for (const uint64_t seed : seeds) {
      for (uint32_t purpose = 1; purpose <= 5; ++purpose) {
        print_stream({seed, static_cast<RandomPurpose>(purpose), stable_hash(name)});
      }
    }
  }
}
