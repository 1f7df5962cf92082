#include "checkpoint/crc32c.h"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/rng.h"

namespace caravan {
namespace {

std::vector<unsigned char> random_bytes(size_t count) {
  const RandomStream random(3, RandomPurpose::test, 0);
  std::vector<unsigned char> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<unsigned char>(random.bits(i));
  return bytes;
}

// The check value of the CRC catalogue and the vectors of RFC 3720, appendix B.4.
TEST(Crc32c, KnownVectors) {
  EXPECT_EQ(crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(crc32c("", 0), 0u);
  std::vector<unsigned char> bytes(32, 0x00);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x8A9136AAu);
  bytes.assign(32, 0xFF);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x62A8AB43u);
  for (size_t i = 0; i < 32; ++i) bytes[i] = static_cast<unsigned char>(i);
  EXPECT_EQ(crc32c(bytes.data(), 32), 0x46DD794Eu);
  EXPECT_EQ(crc32c_portable("123456789", 9), 0xE3069283u);
  EXPECT_EQ(crc32c_hex(0x0000ABCDu), "0000abcd");
}

// Lengths around the borders of words and of lanes, at odd addresses.
TEST(Crc32c, InstructionAndTableAgree) {
  const std::vector<unsigned char> bytes = random_bytes(40000);
  for (const size_t length : {0, 1, 7, 8, 9, 63, 6143, 6144, 6145, 12287, 12288, 20000, 39990}) {
    for (const size_t offset : {0, 1, 5}) {
      EXPECT_EQ(crc32c(bytes.data() + offset, length),
                crc32c_portable(bytes.data() + offset, length))
          << length << " bytes at " << offset;
    }
  }
}

TEST(Crc32c, PiecesEqualTheWhole) {
  const std::vector<unsigned char> bytes = random_bytes(30000);
  const uint32_t whole = crc32c(bytes.data(), bytes.size());
  for (const size_t cut : {0, 1, 4095, 6144, 15000, 29999, 30000}) {
    const uint32_t first = crc32c(bytes.data(), cut);
    EXPECT_EQ(crc32c(bytes.data() + cut, bytes.size() - cut, first), whole) << cut;
  }
}

}  // namespace
}  // namespace caravan
