// The first bytes of an HDF5 file, checked before the library sees the file. Version 3 is the only
// one whose structures are all checksummed; the library's readers of older versions can be crashed
// by a file. No input or output, no errors thrown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace caravan {

inline constexpr size_t kHdf5SuperblockBytes = 48;

// Why the library must not read a file that begins with `block` (fewer bytes than
// kHdf5SuperblockBytes: the whole file) and has `file_size` bytes; "" when it may.
std::string superblock_problem(std::span<const unsigned char> block, int64_t file_size);

}  // namespace caravan
