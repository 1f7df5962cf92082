// A regular file that numbers are read from at any place, and the conversion of those that are
// token ids. For files that others made: nothing of them is believed. Errors: data_error, one line,
// with the name of the file. Const members and functions: any number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace caravan {

class TokenFileBytes {
 public:
  explicit TokenFileBytes(const std::string& path);  // links are followed
  ~TokenFileBytes();
  TokenFileBytes(const TokenFileBytes&) = delete;
  TokenFileBytes& operator=(const TokenFileBytes&) = delete;

  const std::string& path() const { return path_; }
  int64_t size_bytes() const { return size_bytes_; }  // when it was opened
  // Bytes [offset, offset + count); an error when the file ends before.
  void read(int64_t offset, int64_t count, void* bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  int64_t size_bytes_ = 0;
};

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
void read_tokens(const TokenFileBytes& file, const TokenRange& range, int32_t vocab_size,
                 std::span<int32_t> tokens);

}  // namespace caravan
