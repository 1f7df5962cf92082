// Reads a whole checkpoint and says all that is wrong with it, where loading stops at the first
// error. Every byte is read: the manifest, each shard, each frame, and each file's structure.
//
// Memory: the manifest and one buffer of 1 MiB.
// Threads: enters the HDF5 library (see data/hdf5_file.h): one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace caravan {

struct Verification {
  // One line for each damaged file, and one for each damaged tensor in a file. When the manifest is
  // damaged it is the only one, as nothing else says what should be there.
  std::vector<std::string> damage;
  int64_t num_tensors = 0;
  int64_t size_bytes = 0;  // that were read

  bool ok() const { return damage.empty(); }
};

// `checkpoint` is a folder with a manifest. Throws only what has nothing to do with the checkpoint.
Verification verify_checkpoint(const std::string& checkpoint);

}  // namespace caravan
