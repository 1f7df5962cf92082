#include "checkpoint/assets.h"

#include <algorithm>
#include <filesystem>

#include "checkpoint/crc32c.h"
#include "checkpoint/posix_file.h"
#include "data/durable_file.h"
#include "data/folder_path.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxAssetBytes = int64_t{256} << 20;

constexpr std::string_view kTokenizerFiles[] = {
    "tokenizer.json",    "tokenizer_config.json",   "tokenizer.model",   "vocab.json",
    "merges.txt",        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json"};
constexpr std::string_view kModelFiles[] = {"config.json", "generation_config.json"};
constexpr std::string_view kLicences[] = {"LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "COPYING"};

std::string path_in(const std::string& folder, const std::string& name) {
  return folder + "/" + kAssetsFolder + "/" + name;
}

}  // namespace

bool is_asset(const std::string& name, AssetKind kind) {
  if (!is_plain_name(name)) return false;
  if (std::ranges::find(kTokenizerFiles, name) != std::end(kTokenizerFiles)) return true;
  if (kind == AssetKind::tokenizer) return false;
  return std::ranges::find(kModelFiles, name) != std::end(kModelFiles) ||
         std::ranges::any_of(kLicences, [&](auto prefix) { return name.starts_with(prefix); });
}

std::vector<Asset> list_assets(const std::string& folder, AssetKind kind) {
  std::vector<Asset> assets;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!is_asset(name, kind) || !fs::is_regular_file(entry->path())) continue;
    assets.push_back({name, resolve_inside(folder, name)});
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw checkpoint_error(
        absl::StrFormat("%s: cannot list the folder: %s", folder, errno_text(error.value())));
  }
  std::ranges::sort(assets, {}, &Asset::name);
  return assets;
}

std::vector<FileRecord> copy_assets(std::span<const Asset> assets, const std::string& folder) {
  std::vector<FileRecord> records;
  if (assets.empty()) return records;
  const std::string target = folder + "/" + kAssetsFolder;
  std::error_code error;
  fs::create_directories(target, error);
  if (error) {
    throw checkpoint_error(
        absl::StrFormat("%s: cannot make the folder: %s", target, errno_text(error.value())));
  }
  for (const Asset& asset : assets) {
    const std::string bytes = read_file(asset.path, kMaxAssetBytes, ExitCode::checkpoint);
    write_file_durably(path_in(folder, asset.name), bytes, ExitCode::checkpoint);
    records.push_back({asset.name, std::ssize(bytes), crc32c(bytes.data(), bytes.size())});
  }
  sync_folder(folder, ExitCode::checkpoint);
  return records;
}

void check_assets(std::span<const FileRecord> records, const std::string& folder) {
  for (const FileRecord& record : records) {
    const std::string path = path_in(folder, record.name);
    const std::string bytes = read_small_file(path, kMaxAssetBytes);
    if (std::ssize(bytes) == record.size_bytes &&
        crc32c(bytes.data(), bytes.size()) == record.frame_crc32c) {
      continue;
    }
    throw checkpoint_error(path + ": is damaged (checksum mismatch)");
  }
}

std::string asset_path(const Manifest& manifest, const std::string& checkpoint,
                       const std::string& name) {
  const auto found = std::ranges::find(manifest.assets, name, &FileRecord::name);
  return found == manifest.assets.end() ? "" : path_in(checkpoint, name);
}

}  // namespace caravan
