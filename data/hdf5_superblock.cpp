// Layout: signature 8, version 1, offset size 1, length size 1, flags 1, base address 8, extension
// address 8, end of file 8, root group 8, checksum 4 (HDF5 File Format Specification 3.0, II.A).
#include "data/hdf5_superblock.h"

#include <cstring>

#include "absl/strings/str_format.h"

namespace caravan {
namespace {

uint64_t little_endian(const unsigned char* bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

std::string superblock_problem(std::span<const unsigned char> block, int64_t file_size) {
  constexpr unsigned char kSignature[] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  if (block.size() < kHdf5SuperblockBytes ||
      std::memcmp(block.data(), kSignature, sizeof(kSignature)) != 0) {
    return "not an HDF5 file (no signature at its start)";
  }
  if (block[8] != 3) {
    return absl::StrFormat("HDF5 superblock version %d; only version 3 (libver='latest') is read",
                           block[8]);
  }
  if (block[9] != 8 || block[10] != 8 || little_endian(&block[12]) != 0) {
    return "damaged HDF5 superblock";
  }
  if (block[11] != 0) return "was not closed by its writer: the file is incomplete";
  const uint64_t end = little_endian(&block[28]);
  if (end == static_cast<uint64_t>(file_size)) return "";
  return absl::StrFormat("has %d bytes where its header says %d: truncated or damaged", file_size,
                         end);
}

}  // namespace caravan
