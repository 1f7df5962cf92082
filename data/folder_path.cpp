#include "data/folder_path.h"

#include <algorithm>
#include <filesystem>

namespace caravan {
namespace {

namespace fs = std::filesystem;

bool lies_below(const fs::path& path, const fs::path& folder) {
  const auto [end, unused] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

// .../snapshots/REVISION and .../blobs/HASH, with the same beginning.
bool is_blob_of_snapshot(const fs::path& target, const fs::path& folder) {
  const fs::path snapshots = folder.parent_path(), blobs = target.parent_path();
  return snapshots.filename() == "snapshots" && blobs.filename() == "blobs" &&
         snapshots.parent_path() == blobs.parent_path();
}

}  // namespace

bool is_file_name(const std::string& name) {
  const auto is_bad = [](unsigned char c) { return c == '/' || c < ' ' || c == 0x7F; };
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         std::none_of(name.begin(), name.end(), is_bad);
}

std::optional<std::string> find_inside(const std::string& folder, const std::string& name,
                                       ExitCode error_code) {
  if (!is_file_name(name)) {
    throw Error(error_code, folder + ": names a file that is no plain file name in it; remove it");
  }
  std::error_code error;
  // Whole paths are compared, free of links: "..", links to links and links in between are gone.
  const fs::path root = fs::canonical(folder, error);
  if (error || !fs::is_directory(root, error)) {
    throw Error(error_code, folder + ": is not a folder that can be opened");
  }
  const fs::path link = root / name;
  if (!fs::exists(fs::symlink_status(link, error))) return std::nullopt;
  const fs::path target = fs::canonical(link, error);
  if (error) {
    throw Error(error_code,
                absl::StrFormat("%s/%s: is a link to what is not there; copy or download the file",
                                folder, name));
  }
  if (lies_below(target, root) || is_blob_of_snapshot(target, root)) return target.string();
  throw Error(error_code, absl::StrFormat("%s/%s: is a link to a file outside of its folder; "
                                          "copy the file into the folder",
                                          folder, name));
}

std::string resolve_inside(const std::string& folder, const std::string& name,
                           ExitCode error_code) {
  const std::optional<std::string> path = find_inside(folder, name, error_code);
  if (path) return *path;
  throw Error(error_code, absl::StrFormat("%s: has no file '%s'", folder, name));
}

}  // namespace caravan
