#include "checkpoint/directory.h"

#include <algorithm>
#include <filesystem>

#include "checkpoint/assets.h"
#include "checkpoint/posix_file.h"
#include "data/durable_file.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";
constexpr std::string_view kTemporaryPrefix = ".tmp-step-";
constexpr size_t kStepDigits = 8;

std::vector<fs::path> subfolders(const std::string& folder) {
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  if (error == std::errc::no_such_file_or_directory) return {};
  std::vector<fs::path> result;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    std::error_code ignored;  // an entry that vanished is not a folder
    const fs::file_status status = entries->symlink_status(ignored);
    if (fs::is_directory(status)) result.push_back(entries->path());
  }
  if (error) {
    throw checkpoint_error(
        absl::StrFormat("%s: cannot list the folder: %s", folder, errno_text(error.value())));
  }
  return result;
}

bool is_committed(const StepFolder& entry, std::vector<std::string>* problems) {
  try {
    const int64_t step = read_committed(entry.path).header.step;
    if (step == entry.step) return true;
    throw checkpoint_error(
        absl::StrFormat("%s: its manifest is that of step %d", entry.path, step));
  } catch (const Error& error) {
    if (problems != nullptr) problems->push_back(error.what());
    return false;
  }
}

}  // namespace

std::string step_folder_name(int64_t step) { return absl::StrFormat("%s%08d", kStepPrefix, step); }

std::optional<int64_t> parse_step_folder(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  const std::string digits(name.substr(kStepPrefix.size()));
  const bool number = digits.size() >= kStepDigits && digits.size() <= 18 &&
                      digits.find_first_not_of("0123456789") == std::string::npos;
  if (!number) return std::nullopt;
  const int64_t step = std::stoll(digits);
  if (step_folder_name(step) != name) return std::nullopt;  // "step-0000000001"
  return step;
}

std::string temporary_folder_name(int64_t step, const std::string& run_id) {
  check(is_plain_name(run_id), "run id '%s' is not a plain name", run_id);
  return absl::StrFormat("%s%08d-%s", kTemporaryPrefix, step, run_id);
}

std::string rank_file_name(int rank, int num_ranks) {
  return absl::StrFormat("rank-%05d-of-%05d.h5", rank, num_ranks);
}

std::vector<StepFolder> list_step_folders(const std::string& folder) {
  std::vector<StepFolder> result;
  for (const fs::path& path : subfolders(folder)) {
    const std::optional<int64_t> step = parse_step_folder(path.filename().string());
    if (step) result.push_back({path.string(), *step});
  }
  std::sort(result.begin(), result.end(),
            [](const StepFolder& a, const StepFolder& b) { return a.step < b.step; });
  return result;
}

Manifest read_committed(const std::string& checkpoint) {
  Manifest manifest = read_manifest(checkpoint);
  const auto check_sizes = [](const std::string& folder, const std::vector<FileRecord>& files) {
    for (const FileRecord& file : files) {
      const std::string path = folder + "/" + file.name;
      const int64_t size = file_size_bytes(path);
      if (size == file.size_bytes) continue;
      throw checkpoint_error(absl::StrFormat("%s: has %d bytes where the manifest says %d", path,
                                             size, file.size_bytes));
    }
  };
  check_sizes(checkpoint, manifest.files);
  check_sizes(checkpoint + "/" + kAssetsFolder, manifest.assets);
  return manifest;
}

LatestCheckpoint find_latest(const std::string& folder) {
  LatestCheckpoint latest;
  const std::vector<StepFolder> entries = list_step_folders(folder);
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (!is_committed(*entry, &latest.ignored)) continue;
    latest.path = entry->path;
    latest.step = entry->step;
    break;
  }
  return latest;
}

std::vector<std::string> list_temporaries(const std::string& folder) {
  std::vector<std::string> found;
  for (const fs::path& path : subfolders(folder)) {
    if (path.filename().string().starts_with(kTemporaryPrefix)) found.push_back(path.string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::string> clean_temporaries(const std::string& folder) {
  const std::vector<std::string> found = list_temporaries(folder);
  for (const std::string& path : found) {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) {
      throw checkpoint_error(
          absl::StrFormat("%s: cannot remove this leftover: %s", path, errno_text(error.value())));
    }
  }
  return found;
}

std::vector<StepFolder> beyond_limit(const std::string& folder, int64_t limit) {
  if (limit <= 0) return {};
  std::vector<StepFolder> committed;
  for (const StepFolder& entry : list_step_folders(folder)) {
    if (is_committed(entry, nullptr)) committed.push_back(entry);
  }
  committed.resize(committed.size() - std::min(committed.size(), static_cast<size_t>(limit)));
  return committed;
}

// Renamed first: a crash in the middle leaves a temporary, never a half checkpoint.
void delete_checkpoint(const std::string& folder, const StepFolder& entry) {
  const std::string doomed =
      folder + "/" + std::string(kTemporaryPrefix) + fs::path(entry.path).filename().string();
  fs::remove_all(doomed);
  fs::rename(entry.path, doomed);
  sync_folder(folder, ExitCode::checkpoint);
  fs::remove_all(doomed);
}

std::vector<std::string> apply_limit(const std::string& folder, int64_t limit,
                                     const std::string& keep) {
  std::vector<std::string> problems;
  for (const StepFolder& entry : beyond_limit(folder, limit)) {
    if (fs::path(entry.path).filename() == fs::path(keep).filename()) continue;
    try {
      delete_checkpoint(folder, entry);
    } catch (const std::exception& error) {
      problems.push_back(
          absl::StrFormat("%s: cannot delete this old checkpoint: %s", entry.path, error.what()));
    }
  }
  return problems;
}

}  // namespace caravan
