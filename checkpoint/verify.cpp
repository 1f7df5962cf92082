// Shards are read from their places in the manifest, past HDF5, so that one damaged file or tensor
// does not hide the next one. The library sees a file last, when its frame was found good.
#include "checkpoint/verify.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "checkpoint/assets.h"
#include "checkpoint/crc32c.h"
#include "checkpoint/directory.h"
#include "checkpoint/posix_file.h"
#include "checkpoint/rank_file.h"
#include "runtime/error.h"

namespace caravan {
namespace {

class Verifier {
 public:
  explicit Verifier(const std::string& folder) : folder_(folder), buffer_(kBlockBytes) {}

  Verification take() { return std::move(result_); }

  // Runs `check` and keeps what it throws as a line of damage.
  template <typename Check>
  bool attempt(const Check& check) {
    try {
      check();
      return true;
    } catch (const Error& error) {
      if (error.code() != ExitCode::checkpoint) throw;
      result_.damage.push_back(error.what());
      return false;
    }
  }

  void manifest(const Manifest& manifest);
  void file(const FileRecord& record, const std::vector<FileContent>& content);

 private:
  void shard(const ReadableFile& file, const std::string& path, const FileContent& content);

  std::string folder_;
  std::vector<char> buffer_;
  Verification result_;
};

// A copied or renamed folder is not the checkpoint that its name promises.
void check_step(const std::string& folder, const Manifest& manifest) {
  const std::optional<int64_t> step =
      parse_step_folder(std::filesystem::path(folder).filename().string());
  if (!step || *step == manifest.header.step) return;
  throw checkpoint_error(absl::StrFormat("%s/%s: is that of step %d, the folder that of step %d",
                                         folder, kManifestName, manifest.header.step, *step));
}

[[noreturn]] void fail_tensor(const std::string& path, const FileContent& content,
                              const std::string& what) {
  throw checkpoint_error(absl::StrFormat("%s: tensor '%s' %s %s", path, content.tensor->name,
                                         to_string(content.shard->box), what));
}

void Verifier::shard(const ReadableFile& file, const std::string& path,
                     const FileContent& content) {
  const int64_t begin = content.shard->offset_bytes;
  const int64_t end =
      begin + num_elements(content.shard->box.extent) * size_bytes(content.tensor->dtype);
  if (end > file.size_bytes()) fail_tensor(path, content, "lies beyond the end of the file");
  for (int64_t block = 0; begin + block * kBlockBytes < end; ++block) {
    const int64_t position = begin + block * kBlockBytes;
    const int64_t count = std::min(end - position, kBlockBytes);
    file.read(position, count, buffer_.data());
    const uint32_t checksum = content.shard->crc32c[static_cast<size_t>(block)];
    if (crc32c(buffer_.data(), static_cast<size_t>(count)) != checksum) {
      fail_tensor(path, content, "is damaged (checksum mismatch)");
    }
  }
}

void Verifier::file(const FileRecord& record, const std::vector<FileContent>& content) {
  const std::string path = folder_ + "/" + record.name;
  attempt([&] { open_rank_file(folder_, record, content); });
  std::unique_ptr<ReadableFile> file;
  try {
    file = std::make_unique<ReadableFile>(path);
  } catch (const Error&) {  // reported by the line above; here it is why the tensors are lost
  }
  if (file) result_.size_bytes += std::min(file->size_bytes(), record.size_bytes);
  for (const FileContent& entry : content) {
    attempt([&] {
      if (!file) fail_tensor(path, entry, "is lost with its file");
      shard(*file, path, entry);
    });
  }
}

void Verifier::manifest(const Manifest& manifest) {
  std::map<std::string, std::vector<FileContent>> contents;
  for (const TensorRecord& tensor : manifest.tensors) {
    for (const ShardRecord& shard : tensor.shards) {
      contents[shard.file].push_back({&tensor, &shard});
    }
  }
  result_.size_bytes += file_size_bytes(folder_ + "/" + kManifestName);
  attempt([&] { check_step(folder_, manifest); });
  for (const FileRecord& record : manifest.files) file(record, contents[record.name]);
  for (const FileRecord& asset : manifest.assets) {
    attempt([&] { check_assets({&asset, 1}, folder_); });
    result_.size_bytes += asset.size_bytes;
  }
  result_.num_tensors = static_cast<int64_t>(manifest.tensors.size());
}

}  // namespace

Verification verify_checkpoint(const std::string& checkpoint) {
  Verifier verifier(checkpoint);
  Manifest manifest;
  if (verifier.attempt([&] { manifest = read_manifest(checkpoint); })) verifier.manifest(manifest);
  return verifier.take();
}

}  // namespace caravan
