// The instruction takes 8 bytes a cycle but answers after 3, so three lanes run side by side. Their
// checksums are joined by shifting: CRC is linear, and appending n zero bytes to a message is a
// 32 x 32 bit matrix that the compiler computes for the length of a lane.
#include "checkpoint/crc32c.h"

#include <array>
#include <cstring>

#include "absl/strings/str_format.h"

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#endif

namespace caravan {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;

using Table = std::array<uint32_t, 256>;

constexpr Table make_byte_table() {
  Table table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}

constexpr Table kByteTable = make_byte_table();

}  // namespace

uint32_t crc32c_portable(const void* bytes, size_t num_bytes, uint32_t crc) {
  const auto* next = static_cast<const unsigned char*>(bytes);
  crc = ~crc;
  for (size_t i = 0; i < num_bytes; ++i) crc = (crc >> 8) ^ kByteTable[(crc ^ next[i]) & 0xFF];
  return ~crc;
}

std::string crc32c_hex(uint32_t crc) { return absl::StrFormat("%08x", crc); }

#if defined(__SSE4_2__)

namespace {

constexpr size_t kLaneBytes = 2048;  // three lanes stay within the L1 cache

// What one register (without the final inversion) becomes after kLaneBytes zero bytes, for each of
// the four bytes of the register.
using ShiftTables = std::array<Table, 4>;

constexpr std::array<uint32_t, 32> square(const std::array<uint32_t, 32>& matrix) {
  std::array<uint32_t, 32> result{};
  for (size_t column = 0; column < 32; ++column) {
    for (size_t bit = 0; bit < 32; ++bit) {
      if ((matrix[column] >> bit & 1) != 0) result[column] ^= matrix[bit];
    }
  }
  return result;
}

constexpr ShiftTables make_shift_tables() {
  std::array<uint32_t, 32> matrix{};  // column b: the register 1 << b after one zero byte
  for (size_t bit = 0; bit < 32; ++bit) {
    const uint32_t crc = uint32_t{1} << bit;
    matrix[bit] = (crc >> 8) ^ kByteTable[crc & 0xFF];
  }
  for (size_t bytes = 1; bytes < kLaneBytes; bytes *= 2) matrix = square(matrix);
  ShiftTables tables{};
  for (size_t position = 0; position < 4; ++position) {
    for (size_t byte = 0; byte < 256; ++byte) {
      for (size_t bit = 0; bit < 8; ++bit) {
        if ((byte >> bit & 1) != 0) tables[position][byte] ^= matrix[position * 8 + bit];
      }
    }
  }
  return tables;
}

constexpr ShiftTables kShift = make_shift_tables();

uint32_t shift_by_lane(uint32_t crc) {
  return kShift[0][crc & 0xFF] ^ kShift[1][crc >> 8 & 0xFF] ^ kShift[2][crc >> 16 & 0xFF] ^
         kShift[3][crc >> 24];
}

uint64_t load(const unsigned char* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

uint32_t three_lanes(const unsigned char* bytes, uint32_t crc) {
  uint64_t a = crc, b = 0, c = 0;
  for (size_t i = 0; i < kLaneBytes; i += 8) {
    a = _mm_crc32_u64(a, load(bytes + i));
    b = _mm_crc32_u64(b, load(bytes + kLaneBytes + i));
    c = _mm_crc32_u64(c, load(bytes + 2 * kLaneBytes + i));
  }
  const uint32_t ab = shift_by_lane(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
  return shift_by_lane(ab) ^ static_cast<uint32_t>(c);
}

}  // namespace

uint32_t crc32c(const void* bytes, size_t num_bytes, uint32_t crc) {
  const auto* next = static_cast<const unsigned char*>(bytes);
  const auto* const end = next + num_bytes;
  crc = ~crc;
  for (; end - next >= static_cast<ptrdiff_t>(3 * kLaneBytes); next += 3 * kLaneBytes) {
    crc = three_lanes(next, crc);
  }
  for (; end - next >= 8; next += 8) {
    crc = static_cast<uint32_t>(_mm_crc32_u64(crc, load(next)));
  }
  for (; next < end; ++next) crc = _mm_crc32_u8(crc, *next);
  return ~crc;
}

#else

uint32_t crc32c(const void* bytes, size_t num_bytes, uint32_t crc) {
  return crc32c_portable(bytes, num_bytes, crc);
}

#endif

}  // namespace caravan
