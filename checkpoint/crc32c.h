// CRC32C (Castagnoli, reflected polynomial 0x82F63B78), the checksum of every byte of a checkpoint
// and of TensorBoard records. crc32c("123456789") is 0xE3069283.
// Pure functions: callable from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace caravan {

// Continues from `crc`, the checksum of the bytes before (0 when there are none).
uint32_t crc32c(const void* bytes, size_t num_bytes, uint32_t crc = 0);

// The same value by table look-up: what processors without a CRC instruction use.
uint32_t crc32c_portable(const void* bytes, size_t num_bytes, uint32_t crc = 0);

// "e3069283"
std::string crc32c_hex(uint32_t crc);

}  // namespace caravan
