#include "data/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace caravan {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr int kCharacters = 256 + 68;  // U+0000..U+0143

struct Alphabet {
  std::array<int, 256> character{};
  std::array<int, kCharacters> byte{};  // -1: no character of the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.byte) byte = -1;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const int character = stands_for_itself(byte) ? byte : next++;
    alphabet.character[static_cast<size_t>(byte)] = character;
    alphabet.byte[static_cast<size_t>(character)] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::optional<std::string> bytes_of_alphabet(std::string_view name) {
  std::string bytes;
  for (size_t i = 0; i < name.size(); ++i) {
    unsigned character = static_cast<uint8_t>(name[i]);
    if (character >= 0x80) {  // all of the alphabet has at most two bytes
      if (character >= 0xE0 || i + 1 == name.size()) return std::nullopt;
      character = (character & 0x1F) << 6 | (static_cast<uint8_t>(name[++i]) & 0x3F);
    }
    if (character >= kCharacters || kAlphabet.byte[character] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte[character]);
  }
  return bytes;
}

std::string alphabet_of_bytes(std::string_view bytes) {
  std::string name;
  for (const char c : bytes) {
    const int character = kAlphabet.character[static_cast<uint8_t>(c)];
    if (character < 0x80) {
      name += static_cast<char>(character);
    } else {
      name += static_cast<char>(0xC0 | character >> 6);
      name += static_cast<char>(0x80 | (character & 0x3F));
    }
  }
  return name;
}

}  // namespace caravan
