// `caravan ckpt prune`: deletes old checkpoints of a run and leftovers of killed saves.
#include <filesystem>
#include <optional>
#include <ostream>
#include <system_error>

#include "absl/strings/str_format.h"
#include "launch/ckpt_command.h"
#include "launch/run_lock.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// Bytes of all files under a folder, links not followed. What vanishes meanwhile counts as nothing.
int64_t folder_bytes(const std::string& folder) {
  int64_t bytes = 0;
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, error);
  while (!error && entries != fs::recursive_directory_iterator()) {
    std::error_code ignored;
    if (fs::is_regular_file(entries->symlink_status(ignored))) {
      const auto size = entries->file_size(ignored);
      if (!ignored) bytes += static_cast<int64_t>(size);
    }
    entries.increment(error);
  }
  return bytes;
}

// Says and counts what goes.
struct Report {
  std::ostream& out;
  bool dry_run;
  int64_t num_folders = 0;
  int64_t num_bytes = 0;

  void operator()(const std::string& path, int64_t bytes) {
    ++num_folders;
    num_bytes += bytes;
    out << absl::StrFormat("%s %s (%s)\n", dry_run ? "would delete" : "deleted", path,
                           format_bytes(bytes));
  }
};

void remove(const std::string& folder, const StepFolder& entry) {
  try {
    delete_checkpoint(folder, entry);
  } catch (const fs::filesystem_error& error) {
    throw checkpoint_error(
        absl::StrFormat("%s: cannot be deleted: %s", entry.path, error.code().message()));
  }
}

// While another process trains, a temporary may be the checkpoint that it is saving.
void prune_temporaries(const std::string& run, const std::string& folder, Report& report) {
  const std::vector<std::string> found = list_temporaries(folder);
  if (found.empty()) return;
  std::optional<RunLock> lock;  // held until they are gone: no training begins meanwhile
  try {
    lock.emplace(run);
  } catch (const std::system_error& error) {
    throw checkpoint_error(
        absl::StrFormat("%s: cannot lock the run folder: %s", run, error.code().message()));
  }
  if (!lock->is_held()) {
    report.out << absl::StrFormat(
        "kept %d unfinished: a process trains in %s and may be saving; prune again when it ended\n",
        found.size(), run);
    return;
  }
  std::vector<int64_t> sizes;
  const std::vector<std::string> leftovers = list_temporaries(folder);  // as they are under lock
  for (const std::string& path : leftovers) sizes.push_back(folder_bytes(path));
  if (!report.dry_run) clean_temporaries(folder);
  for (size_t i = 0; i < leftovers.size(); ++i) report(leftovers[i], sizes[i]);
}

}  // namespace

void prune_checkpoints(const std::string& run, int64_t keep, bool dry_run, std::ostream& out) {
  if (keep < 1) {
    throw config_error(
        absl::StrFormat("--keep is %d; give at least 1, as the newest is never deleted", keep));
  }
  const std::string folder = (fs::path(run) / "checkpoints").string();
  std::error_code ignored;  // whatever it is: there is no such folder for us
  if (!fs::is_directory(folder, ignored)) {
    throw checkpoint_error(run + ": has no folder 'checkpoints'; give the output_dir of a run");
  }
  Report report{out, dry_run};
  for (const StepFolder& entry : beyond_limit(folder, keep)) {
    const int64_t bytes = folder_bytes(entry.path);
    if (!dry_run) remove(folder, entry);
    report(entry.path, bytes);
  }
  prune_temporaries(run, folder, report);
  out << absl::StrFormat("%s: %d folder%s, %s\n", dry_run ? "would be freed" : "freed",
                         report.num_folders, report.num_folders == 1 ? "" : "s",
                         format_bytes(report.num_bytes));
}

}  // namespace caravan
