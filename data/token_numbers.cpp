#include "data/token_numbers.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "runtime/error.h"

namespace caravan {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

constexpr int64_t kStackBytes = 16 << 10;  // on the stack

[[noreturn]] void refuse_token(const std::string& path, int64_t token, int32_t vocab_size,
                               int64_t position) {
  throw data_error(absl::StrFormat("%s: token %d at position %d is not in a vocabulary of %d: %s",
                                   path, token, position, vocab_size,
                                   "is data.vocab_size or data.tokenizer that of this file?"));
}

template <typename Number>
void convert(const ReadableFile& file, const TokenRange& range, int32_t vocab_size,
             std::span<int32_t> tokens) {
  constexpr auto kAtOnce = static_cast<size_t>(kStackBytes) / sizeof(Number);
  std::array<Number, kAtOnce> numbers;
  for (size_t done = 0; done < tokens.size();) {
    const size_t count = std::min(kAtOnce, tokens.size() - done);
    const int64_t position = range.first + static_cast<int64_t>(done);
    file.read(range.offset + position * static_cast<int64_t>(sizeof(Number)),
              static_cast<int64_t>(count * sizeof(Number)), numbers.data());
    for (size_t i = 0; i < count; ++i) {
      const auto token = static_cast<int64_t>(numbers[i]);
      if (token < 0 || token >= vocab_size) {
        refuse_token(file.path(), token, vocab_size, position + static_cast<int64_t>(i));
      }
      tokens[done + i] = static_cast<int32_t>(token);
    }
    done += count;
  }
}

}  // namespace

int64_t size_bytes(TokenType type) {
  switch (type) {
    case TokenType::u8:
    case TokenType::i8:
      return 1;
    case TokenType::u16:
    case TokenType::i16:
      return 2;
    case TokenType::u32:
    case TokenType::i32:
      return 4;
    case TokenType::i64:
      return 8;
  }
  throw internal_error("size of an unknown token type");
}

std::string_view name(TokenType type) {
  constexpr std::array<std::string_view, 7> kNames = {"u8",  "i8",  "u16", "i16",
                                                      "u32", "i32", "i64"};
  return kNames.at(static_cast<size_t>(type));
}

void read_tokens(const ReadableFile& file, const TokenRange& range, int32_t vocab_size,
                 std::span<int32_t> tokens) {
  switch (range.type) {
    case TokenType::u8:
      return convert<uint8_t>(file, range, vocab_size, tokens);
    case TokenType::i8:
      return convert<int8_t>(file, range, vocab_size, tokens);
    case TokenType::u16:
      return convert<uint16_t>(file, range, vocab_size, tokens);
    case TokenType::i16:
      return convert<int16_t>(file, range, vocab_size, tokens);
    case TokenType::u32:
      return convert<uint32_t>(file, range, vocab_size, tokens);
    case TokenType::i32:
      return convert<int32_t>(file, range, vocab_size, tokens);
    case TokenType::i64:
      return convert<int64_t>(file, range, vocab_size, tokens);
  }
}

}  // namespace caravan
