#include "launch/run_folder.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_format.h"
#include "checkpoint/directory.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_to_write(const Config& config, const std::string& reason) {
  throw config_error(absl::StrFormat("cannot write to output_dir '%s': %s; choose another",
                                     config.output_dir, reason));
}

// Written beside and renamed, so that there is always a whole one.
void save_effective_config(const Config& config) {
  const fs::path path = fs::path(config.output_dir) / "config.yaml";
  const fs::path temporary = path.string() + ".tmp";
  errno = 0;
  std::ofstream file(temporary);
  file << to_yaml(config);
  file.close();
  if (!file) fail_to_write(config, std::generic_category().message(errno));
  std::error_code error;
  fs::rename(temporary, path, error);
  if (error) fail_to_write(config, error.message());
}

}  // namespace

std::string checkpoints_folder(const Config& config) {
  return (fs::path(config.output_dir) / "checkpoints").string();
}

std::string metrics_path(const Config& config) {
  return (fs::path(config.output_dir) / "metrics.jsonl").string();
}

void prepare_run_folder(const Config& config) {
  std::error_code error;
  fs::create_directories(checkpoints_folder(config), error);
  if (error) fail_to_write(config, error.message());
  clean_temporaries(checkpoints_folder(config));
  save_effective_config(config);
}

std::string checkpoint_to_resume(const Config& config, std::vector<std::string>& warnings) {
  const ResumeFrom& resume = config.checkpoint.resume_from_checkpoint;
  LatestCheckpoint latest = find_latest(checkpoints_folder(config));
  switch (resume.kind) {
    case ResumeFrom::Kind::path:
      return resume.path;
    case ResumeFrom::Kind::automatic:
      warnings = std::move(latest.ignored);
      return latest.path;
    case ResumeFrom::Kind::never:
      break;
  }
  if (latest.path.empty()) return "";
  throw config_error(absl::StrFormat(
      "resume_from_checkpoint is false, but %s exists; choose another output_dir, or remove it",
      latest.path));
}

}  // namespace caravan
