#include "checkpoint/reader.h"

#include <algorithm>

#include "checkpoint/crc32c.h"

namespace caravan {
namespace {

constexpr int kMaxOpenFiles = 256;  // a quarter of the usual limit of descriptors

}  // namespace

CheckpointReader::CheckpointReader(const std::string& path)
    : path_(path), manifest_(read_manifest(path)), buffer_(kPieceBytes) {
  for (const FileRecord& file : manifest_.files) files_[file.name].record = &file;
  for (const TensorRecord& tensor : manifest_.tensors) {
    tensors_[tensor.name] = &tensor;
    for (const ShardRecord& shard : tensor.shards) {
      files_[shard.file].content.push_back({&tensor, &shard});
    }
  }
}

const TensorRecord& CheckpointReader::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return *found->second;
  throw checkpoint_error(absl::StrFormat(
      "%s: has no tensor '%s' (`caravan ckpt show %s --tensors` lists them)", path_, name, path_));
}

Hdf5Reader& CheckpointReader::open(File& file) {
  if (file.reader) return *file.reader;
  if (num_open_ == kMaxOpenFiles) {
    for (auto& [name, other] : files_) other.reader.reset();
    num_open_ = 0;
  }
  file.reader = open_rank_file(path_, *file.record, file.content);
  ++num_open_;
  return *file.reader;
}

void CheckpointReader::read(const TensorRequest& request) {
  const TensorRecord& found = tensor(request.name);
  if (found.dtype != request.dtype || found.shape != request.global_shape) {
    throw checkpoint_error(absl::StrFormat(
        "%s: tensor '%s' was saved as %s%s, but this run needs %s%s: the model differs", path_,
        request.name, name(found.dtype), to_string(found.shape), name(request.dtype),
        to_string(request.global_shape)));
  }
  const Box wanted{request.offset, request.extent};
  check(lies_inside(wanted, found.shape), "box %s of %s leaves its shape %s", to_string(wanted),
        request.name, to_string(found.shape));
  // The manifest was validated: the shards cover the tensor, so they cover the box.
  for (const ShardRecord& shard : found.shards) {
    const std::optional<Box> common = intersect(shard.box, wanted);
    if (common) read_shard(found, shard, *common, request);
  }
}

void CheckpointReader::read_shard(const TensorRecord& tensor, const ShardRecord& shard,
                                  const Box& common, const TensorRequest& request) {
  Hdf5Reader& reader = open(files_.at(shard.file));
  const int64_t element_bytes = size_bytes(tensor.dtype);
  const int64_t block = kBlockBytes / element_bytes, piece = kPieceBytes / element_bytes;
  const int64_t total = num_elements(shard.box.extent);
  SharedRuns runs(shard.box, {request.offset, request.extent}, common);
  // Whole blocks, since those have the checksums.
  const int64_t begin = runs.source_begin() / block * block;
  const int64_t end = std::min(total, (runs.source_end() + block - 1) / block * block);
  char* const destination = static_cast<char*>(request.data);
  uint32_t crc = 0;
  for (int64_t first = begin; first < end; first += piece) {
    const int64_t count = std::min(end - first, piece);
    const std::optional<int64_t> place = runs.place(first, count);
    char* const bytes = place ? destination + *place * element_bytes : buffer_.data();
    reader.read(tensor.name, first, count, bytes);
    bytes_read_ += count * element_bytes;
    if (first % block == 0) crc = 0;
    crc = crc32c(bytes, static_cast<size_t>(count * element_bytes), crc);
    const bool ends_block = (first + count) % block == 0 || first + count == total;
    if (ends_block && crc != shard.crc32c[static_cast<size_t>(first / block)]) {
      throw checkpoint_error(absl::StrFormat("%s: tensor '%s' is damaged (checksum mismatch)",
                                             reader.path(), tensor.name));
    }
    if (!place) runs.copy(first, count, bytes, element_bytes, destination);
  }
}

}  // namespace caravan
