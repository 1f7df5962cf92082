// Token ids out of files that others made, in any type that they use: nothing of them is believed.
// Errors: data_error, one line, with the name of the file. Any number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "data/readable_file.h"

namespace caravan {

enum class TokenType : uint8_t { u8, i8, u16, i16, u32, i32, i64 };  // little-endian
int64_t size_bytes(TokenType type);
std::string_view name(TokenType type);  // "u16"

// Tokens [first, first + tokens.size()) of those that begin at `offset` of the file; one that is
// not in [0, vocab_size) is an error. No allocation.
struct TokenRange {
  int64_t offset = 0;  // of token 0, in bytes
  TokenType type = TokenType::u16;
  int64_t first = 0;
};
void read_tokens(const ReadableFile& file, const TokenRange& range, int32_t vocab_size,
                 std::span<int32_t> tokens);

}  // namespace caravan
