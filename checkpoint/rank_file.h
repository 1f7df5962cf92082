// The file of one rank in a checkpoint: writing it from memory, and opening it so that not one
// unchecked byte reaches the HDF5 library or a tensor.
// Threads: enters the HDF5 library (see data/hdf5_file.h): one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "checkpoint/manifest.h"
#include "data/hdf5_file.h"

namespace caravan {

// A box of a global tensor in host memory, row-major and dense. Looks at `data`, does not own it.
struct TensorShard {
  std::string name;  // of the global tensor; '/' separates groups
  DType dtype = DType::f32;
  Shape global_shape;
  Shape offset;
  Shape extent;
  const void* data = nullptr;
};

int64_t size_bytes(const TensorShard& shard);

// Gives bytes of shard number `shard`, from `first_byte` on. Asked for all bytes in order, once.
using ShardSource = std::function<void(size_t shard, int64_t first_byte, std::span<std::byte> out)>;

// Writes and makes durable folder/name (which must not exist), at most one shard of each tensor.
// The bytes come from `source`, or where there is none from the shards' own memory.
// No shards: writes nothing. Throws checkpoint errors that name path and errno.
RankReport write_rank_file(const std::string& folder, const std::string& name,
                           std::span<const TensorShard> shards, const ShardSource& source = {});

// What the manifest says to be in one file.
struct FileContent {
  const TensorRecord* tensor;
  const ShardRecord* shard;
};

// Checks size and frame against the manifest, then opens the file and compares each dataset.
// Elements are not read: their checksums are the caller's.
std::unique_ptr<Hdf5Reader> open_rank_file(const std::string& folder, const FileRecord& file,
                                           std::span<const FileContent> content);

}  // namespace caravan
