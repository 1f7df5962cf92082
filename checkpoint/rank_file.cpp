#include "checkpoint/rank_file.h"

#include <algorithm>

#include "checkpoint/crc32c.h"
#include "checkpoint/posix_file.h"
#include "data/durable_file.h"

namespace caravan {
namespace {

struct ShardRange {
  int64_t begin, end;
};

Hdf5Type hdf5_type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return Hdf5Type::f32;
    case DType::bf16:
      return Hdf5Type::u16;
    case DType::i32:
      return Hdf5Type::i32;
  }
  throw internal_error("unknown dtype");
}

// The checksum of all bytes of a file outside of `shards`.
uint32_t frame_checksum(const ReadableFile& file, std::vector<ShardRange> shards) {
  std::string buffer(1 << 16, '\0');
  std::sort(shards.begin(), shards.end(),
            [](const ShardRange& a, const ShardRange& b) { return a.begin < b.begin; });
  shards.push_back({file.size_bytes(), file.size_bytes()});
  uint32_t crc = 0;
  int64_t position = 0;
  for (const ShardRange& shard : shards) {
    while (position < shard.begin) {
      const int64_t bytes = std::min(shard.begin - position, std::ssize(buffer));
      file.read(position, bytes, buffer.data());
      crc = crc32c(buffer.data(), static_cast<size_t>(bytes), crc);
      position += bytes;
    }
    position = shard.end;
  }
  return crc;
}

// next(first_byte, bytes) is where the next bytes of the shard lie.
template <typename Next>
ShardRecord write_shard(Hdf5Writer& writer, const std::string& file, const TensorShard& shard,
                        Next next) {
  const Box box{shard.offset, shard.extent};
  check(lies_inside(box, shard.global_shape), "shard %s of %s leaves its shape %s", to_string(box),
        shard.name, to_string(shard.global_shape));
  writer.create(shard.name, hdf5_type_of(shard.dtype), shard.extent);
  // For people with HDF5 tools: what the file's own types cannot say.
  if (shard.dtype == DType::bf16) writer.write_attribute(shard.name, "dtype", std::string("bf16"));
  const int64_t element_bytes = size_bytes(shard.dtype), total = num_elements(shard.extent);
  std::vector<uint32_t> checksums;
  for (int64_t first = 0; first < total; first += kPieceBytes / element_bytes) {
    const int64_t count = std::min(total - first, kPieceBytes / element_bytes);
    const int64_t first_byte = first * element_bytes, bytes = count * element_bytes;
    const void* piece = next(first_byte, bytes);
    if (first_byte % kBlockBytes == 0) checksums.push_back(0);
    checksums.back() = crc32c(piece, static_cast<size_t>(bytes), checksums.back());
    writer.write(shard.name, first, count, piece);
  }
  return {box, file, writer.dataset(shard.name).offset_bytes, std::move(checksums)};
}

void compare(const Hdf5Reader& reader, const FileContent& content) {
  const Hdf5Dataset& dataset = reader.dataset(content.tensor->name);
  const bool same = dataset.type == hdf5_type_of(content.tensor->dtype) &&
                    dataset.shape == content.shard->box.extent &&
                    dataset.offset_bytes == content.shard->offset_bytes;
  if (same) return;
  throw checkpoint_error(absl::StrFormat(
      "%s: dataset '%s' (%s%s at byte %d) is not what the manifest says (%s%s at byte %d)",
      reader.path(), content.tensor->name, name(dataset.type), to_string(dataset.shape),
      dataset.offset_bytes, name(content.tensor->dtype), to_string(content.shard->box.extent),
      content.shard->offset_bytes));
}

}  // namespace

int64_t size_bytes(const TensorShard& shard) {
  return num_elements(shard.extent) * size_bytes(shard.dtype);
}

RankReport write_rank_file(const std::string& folder, const std::string& name,
                           std::span<const TensorShard> shards, const ShardSource& source) {
  RankReport report;
  if (shards.empty()) return report;
  const std::string path = folder + "/" + name;
  Hdf5Writer writer(path, ExitCode::checkpoint);
  std::vector<std::byte> buffer(source ? kPieceBytes : 0);
  std::vector<ShardRange> ranges;
  for (size_t i = 0; i < shards.size(); ++i) {
    const TensorShard& shard = shards[i];
    const auto next = [&](int64_t first_byte, int64_t bytes) -> const void* {
      if (!source) return static_cast<const std::byte*>(shard.data) + first_byte;
      source(i, first_byte, std::span(buffer).first(static_cast<size_t>(bytes)));
      return buffer.data();
    };
    const ShardRecord record = write_shard(writer, name, shard, next);
    ranges.push_back({record.offset_bytes, record.offset_bytes + size_bytes(shard)});
    report.tensors.push_back({shard.name, shard.dtype, shard.global_shape, {record}});
  }
  writer.close();
  sync_folder(
      folder,
      ExitCode::checkpoint);  // on network file systems each machine makes its own names durable
  const ReadableFile file(path);
  report.file = {name, file.size_bytes(), frame_checksum(file, std::move(ranges))};
  return report;
}

std::unique_ptr<Hdf5Reader> open_rank_file(const std::string& folder, const FileRecord& file,
                                           std::span<const FileContent> content) {
  const std::string path = folder + "/" + file.name;
  const ReadableFile opened(path);
  if (opened.size_bytes() != file.size_bytes) {
    throw checkpoint_error(absl::StrFormat("%s: has %d bytes where the manifest says %d", path,
                                           opened.size_bytes(), file.size_bytes));
  }
  std::vector<ShardRange> ranges;
  for (const FileContent& entry : content) {
    const int64_t begin = entry.shard->offset_bytes;
    const int64_t bytes = num_elements(entry.shard->box.extent) * size_bytes(entry.tensor->dtype);
    ranges.push_back({begin, begin + bytes});
  }
  if (frame_checksum(opened, std::move(ranges)) != file.frame_crc32c) {
    throw checkpoint_error(path + ": damaged outside of its tensors (checksum mismatch)");
  }
  auto reader = std::make_unique<Hdf5Reader>(path, ExitCode::checkpoint);
  for (const FileContent& entry : content) compare(*reader, entry);
  return reader;
}

}  // namespace caravan
