// The made-up text of tests/golden/make_tokenizers.py, byte for byte, and its checksum of ids.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"

namespace caravan {

inline std::string golden_tokenizer_path(const std::string& name) {
  return std::string(CARAVAN_SOURCE_DIR) + "/tests/golden/tokenizers/" + name;
}

// Knuth's 64-bit linear congruential generator; the upper bits are used.
class GoldenRandom {
 public:
  explicit GoldenRandom(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t draw(uint64_t limit) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % limit;
  }

 private:
  uint64_t state_;
};

// Lines of ASCII with \xHH and \\ in them.
inline std::vector<std::string> read_golden_pieces() {
  std::vector<std::string> pieces;
  std::ifstream file(golden_tokenizer_path("pieces.txt"));
  for (std::string line; std::getline(file, line);) {
    std::string piece;
    for (size_t i = 0; i < line.size(); ++i) {
      if (line[i] != '\\') {
        piece += line[i];
      } else if (line[i + 1] == '\\') {
        piece += line[++i];
      } else {
        piece += static_cast<char>(std::strtol(line.substr(i + 2, 2).c_str(), nullptr, 16));
        i += 3;
      }
    }
    if (!piece.empty()) pieces.push_back(piece);
  }
  return pieces;
}

// Some 64 KiB; a few pieces are no UTF-8.
inline std::string golden_block(const std::vector<std::string>& pieces, uint64_t number) {
  constexpr size_t kBlockBytes = size_t{1} << 16;
  GoldenRandom random(number);
  std::string text;
  while (text.size() < kBlockBytes) {
    const std::string& piece = pieces[random.draw(pieces.size())];
    const uint64_t kind = random.draw(32);
    const uint64_t count = kind == 0 ? 1 + random.draw(90) : kind < 4 ? 1 + random.draw(4) : 1;
    for (uint64_t i = 0; i < count; ++i) text += piece;
    if (random.draw(2) == 0) text += " ";
  }
  return text;
}

inline std::string golden_checksum(std::span<const int32_t> ids) {
  uint64_t sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    uint64_t place = (i + 1) * 0x9E3779B97F4A7C15u;
    place ^= place >> 29;
    sum += (static_cast<uint64_t>(ids[i]) + 1) * place;
  }
  return absl::StrFormat("%016x", sum);
}

}  // namespace caravan
