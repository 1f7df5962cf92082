// The manifest of a checkpoint: manifest.json, written last. It says what the checkpoint is and
// where every element of every tensor lies, with a checksum for every byte of every file: a byte of
// a rank's file is either inside one shard or part of the file's frame (HDF5 structures, padding).
//
// The text is one JSON object whose last line is the CRC32C of all bytes before that line.
// Errors: checkpoint errors that name the manifest and the field.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/box.h"
#include "runtime/types.h"

namespace caravan {

inline constexpr int64_t kManifestFormat = 2;
inline constexpr const char* kManifestName = "manifest.json";
inline constexpr int64_t kMaxManifestBytes = int64_t{256} << 20;

// What the trainer says about a checkpoint. Doubles come back bit for bit, not-finite ones too
// (the sign and payload of a NaN aside).
struct CheckpointHeader {
  std::string run_id;        // letters, digits, '-', '_' and '.'; part of the temporary's name
  int64_t step = 0;          // steps done
  int64_t tokens = 0;        // tokens trained on
  std::string config_hash;   // of the effective config
  std::string tool_version;  // of the program that wrote it
  int64_t unix_time = 0;     // seconds
  std::map<std::string, int64_t> layout;    // {"dp": 2, "tp": 1, "zero": 1, ...}
  std::map<std::string, int64_t> counters;  // the trainer's state: exact integers,
  std::map<std::string, double> scalars;    // numbers ("loss" is shown by `caravan ckpt ls`)
  std::map<std::string, std::vector<double>> series;  // lists of them
  std::map<std::string, std::string> texts;           // and text, such as the model's config

  bool operator==(const CheckpointHeader&) const = default;
};

// A file of the checkpoint, in the folder of the manifest.
struct FileRecord {
  std::string name;
  int64_t size_bytes = 0;
  uint32_t frame_crc32c = 0;  // of all bytes outside of shards, in order

  bool operator==(const FileRecord&) const = default;
};

// A checksum covers this much of a shard, so that who wants a part reads little more than that.
inline constexpr int64_t kBlockBytes = int64_t{1} << 20;
// Blocks are read and written in pieces that stay in the L2 cache from copy to checksum to write.
inline constexpr int64_t kPieceBytes = kBlockBytes / 4;
constexpr int64_t num_blocks(int64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

// A box of a tensor, dense in `file` as the dataset that is called like the tensor.
struct ShardRecord {
  Box box;
  std::string file;
  int64_t offset_bytes = 0;      // of its first element in the file
  std::vector<uint32_t> crc32c;  // of its elements, by blocks; the last one may be shorter

  bool operator==(const ShardRecord&) const = default;
};

struct TensorRecord {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;  // global
  std::vector<ShardRecord> shards;

  bool operator==(const TensorRecord&) const = default;
};

struct Manifest {
  CheckpointHeader header;
  std::vector<FileRecord> files;        // ordered by rank
  std::vector<TensorRecord> tensors;    // ordered by name
  std::vector<FileRecord> assets = {};  // in the folder `assets`, see checkpoint/assets.h

  bool operator==(const Manifest&) const = default;
};

// What one rank wrote; travels to rank 0 as text. `error` is empty, or says why there is no file.
// A rank without shards writes no file and leaves its name empty.
struct RankReport {
  std::string error;
  FileRecord file;
  std::vector<TensorRecord> tensors;  // with one shard each
  std::vector<FileRecord> assets = {};
};

std::string encode(const Manifest& manifest);
std::string encode(const RankReport& report);

// `origin` (a path, "rank 3") opens the messages. The result is validated.
Manifest decode_manifest(const std::string& text, const std::string& origin);
RankReport decode_rank_report(const std::string& text, const std::string& origin);

// Reads and decodes `folder`/manifest.json.
Manifest read_manifest(const std::string& folder);

// Names are sane, shards lie in their tensors and files, cover each tensor exactly once and do not
// overlap in a file.
void validate(const Manifest& manifest, const std::string& origin);

// Usable as a file name and as a run id: at most 128 letters, digits, '-', '_', '.', no dot first.
bool is_plain_name(const std::string& text);

// Bytes of all files, assets included.
int64_t total_bytes(const Manifest& manifest);

}  // namespace caravan
