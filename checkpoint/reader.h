// Loading from a checkpoint: any box of any global tensor, out of whatever shards were written, so
// that every layout of ranks loads every other. Each byte that reaches the caller was checked, and
// so was the frame of each file that it came from.
//
// Memory: the manifest and one piece of a block (manifest.h). Reads only the files that hold what
// is asked for, and of their tensors only the blocks. Threads: one at a time; opens HDF5 files (see
// data/hdf5_file.h). Errors: checkpoint errors that name tensor and file.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/weight_source.h"

namespace caravan {

class CheckpointReader : public WeightSource {
 public:
  explicit CheckpointReader(const std::string& path);  // a folder with a manifest
  CheckpointReader(const CheckpointReader&) = delete;
  CheckpointReader& operator=(const CheckpointReader&) = delete;

  const std::string& path() const override { return path_; }
  const Manifest& manifest() const { return manifest_; }
  bool has_tensor(const std::string& name) const { return tensors_.count(name) > 0; }
  const TensorRecord& tensor(const std::string& name) const;  // an error when missing

  int64_t bytes_read() const override { return bytes_read_; }
  void read(const TensorRequest& request) override;
  int64_t stored_bytes(const std::string& name) const override {
    return size_bytes(tensor(name).dtype);
  }

 private:
  struct File {
    const FileRecord* record = nullptr;
    std::vector<FileContent> content;
    std::unique_ptr<Hdf5Reader> reader;  // null until a tensor in it is read
  };
  Hdf5Reader& open(File& file);
  void read_shard(const TensorRecord& tensor, const ShardRecord& shard, const Box& common,
                  const TensorRequest& request);

  std::string path_;
  Manifest manifest_;
  std::map<std::string, const TensorRecord*> tensors_;
  std::map<std::string, File> files_;
  std::vector<char> buffer_;
  int num_open_ = 0;
  int64_t bytes_read_ = 0;
};

}  // namespace caravan
