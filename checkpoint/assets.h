// Assets: files that belong to a model and travel with it unchanged, in the folder `assets` of a
// run and of each checkpoint: the tokenizer, the config.json that it came with, its licence. So a
// checkpoint can be exported wherever it has been moved to.
//
// Errors: checkpoint errors that name the path.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"

namespace caravan {

inline constexpr const char* kAssetsFolder = "assets";

// What is taken along of a folder, by name; other files, and files of weights, are not.
enum class AssetKind : uint8_t {
  tokenizer,  // what tokenizers read
  model,      // these, config.json, generation_config.json, and licences
};
bool is_asset(const std::string& name, AssetKind kind);

struct Asset {
  std::string name;  // a plain name
  std::string path;  // of a regular file
};

// The assets that lie in `folder`, by name; none when it does not exist. Links are followed only
// where resolve_inside (data/folder_path.h) allows it.
std::vector<Asset> list_assets(const std::string& folder, AssetKind kind);

// Copies them into `folder`/assets, which is made, and makes them durable. `frame_crc32c` is that
// of all their bytes.
std::vector<FileRecord> copy_assets(std::span<const Asset> assets, const std::string& folder);

// Whether `folder`/assets has them as `records` say.
void check_assets(std::span<const FileRecord> records, const std::string& folder);

// Path of an asset; "" when the manifest does not list it.
std::string asset_path(const Manifest& manifest, const std::string& checkpoint,
                       const std::string& name);

}  // namespace caravan
