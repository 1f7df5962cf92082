#include "launch/run_folder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_format.h"
#include "checkpoint/directory.h"
#include "launch/failure.h"
#include "runtime/error.h"

namespace caravan {

namespace fs = std::filesystem;

namespace {

std::vector<std::string> newest_first(const std::string& folder, const LatestCheckpoint& latest) {
  if (latest.path.empty()) return {};
  std::vector<std::string> paths;
  for (const StepFolder& entry : list_step_folders(folder)) {
    if (entry.step <= latest.step) paths.push_back(entry.path);
  }
  std::ranges::reverse(paths);
  return paths;
}

void check_is_checkpoint(const std::string& path) {
  std::error_code error;
  if (fs::exists(fs::path(path) / "manifest.json", error)) return;
  throw config_error(absl::StrFormat(
      "checkpoint.resume_from_checkpoint is '%s', which is no checkpoint; write auto, false, or "
      "the folder of one such as RUN/checkpoints/step-00000100",
      path));
}

// An imported checkpoint has weights alone; a run that goes on needs more.
void check_is_of_run(const std::string& path) {
  if (!read_committed(path).header.texts.contains(kModelText)) return;
  throw config_error(absl::StrFormat(
      "checkpoint.resume_from_checkpoint is '%s', an imported model without the state of a run; "
      "start from it with model.init_from=%s",
      path, path));
}

// Whether a run that began at `start`, a checkpoint of another folder, made the newest of this one:
// then the same command was started again and goes on. One of the same folder is a wish to go back.
bool came_from(const std::string& start, const std::string& latest) {
  const fs::path folder = fs::canonical(latest).parent_path();
  return fs::canonical(start).parent_path() != folder &&
         read_committed(start).header.run_id == read_committed(latest).header.run_id;
}

}  // namespace

std::string checkpoints_folder(const Config& config) {
  return (fs::path(config.output_dir) / "checkpoints").string();
}

std::string metrics_path(const Config& config) {
  return (fs::path(config.output_dir) / "metrics.jsonl").string();
}

std::vector<Asset> run_assets(const Config& config) {
  return list_assets(config.output_dir + "/" + kAssetsFolder, AssetKind::model);
}

RunFolder::RunFolder(const Config& config) : config_(config) {
  std::error_code error;
  fs::create_directories(checkpoints_folder(config_), error);
  if (error) fail_to_write(error.message());
  lock();
  remove_failure(config_.output_dir);
  clean_temporaries(checkpoints_folder(config_));
}

void RunFolder::fail_to_write(const std::string& reason) const {
  throw config_error(absl::StrFormat("cannot write to output_dir '%s': %s; choose another",
                                     config_.output_dir, reason));
}

void RunFolder::lock() {
  try {
    lock_.emplace(config_.output_dir);
  } catch (const std::system_error& error) {
    fail_to_write(error.code().message());
  }
  if (lock_->is_held()) return;
  throw config_error(absl::StrFormat(
      "another process trains in output_dir '%s'; wait until it ends, or choose another",
      config_.output_dir));
}

ResumeChoice RunFolder::choose_resume() const {
  const ResumeFrom& resume = config_.checkpoint.resume_from_checkpoint;
  const std::string folder = checkpoints_folder(config_);
  LatestCheckpoint latest = find_latest(folder);
  if (latest.path.empty() && !latest.ignored.empty()) {
    throw checkpoint_error(absl::StrFormat(
        "no checkpoint of output_dir '%s' can be used (%s); mend or remove %s, or choose another "
        "output_dir",
        config_.output_dir, latest.ignored.front(), folder));
  }
  switch (resume.kind) {
    case ResumeFrom::Kind::automatic:
      return {newest_first(folder, latest), std::move(latest.ignored)};
    case ResumeFrom::Kind::path:
      check_is_checkpoint(resume.path);
      check_is_of_run(resume.path);
      if (latest.path.empty() || read_committed(resume.path).header.step >= latest.step) {
        return {{resume.path}, {}};
      }
      if (!came_from(resume.path, latest.path)) {
        throw config_error(
            absl::StrFormat("%s is older than %s, and would mix with it; choose "
                            "another output_dir to go on from it",
                            resume.path, latest.path));
      }
      return {newest_first(folder, latest), std::move(latest.ignored)};
    case ResumeFrom::Kind::never:
      break;
  }
  if (latest.path.empty()) return {};
  throw config_error(absl::StrFormat(
      "resume_from_checkpoint is false, but %s exists; choose another output_dir, or remove it",
      latest.path));
}

// Written beside and renamed, so that there is always a whole one.
void RunFolder::save_config() const {
  const fs::path path = fs::path(config_.output_dir) / "config.yaml";
  const fs::path temporary = path.string() + ".tmp";
  errno = 0;
  std::ofstream file(temporary);
  file << to_yaml(config_);
  file.close();
  if (!file) fail_to_write(std::generic_category().message(errno));
  std::error_code error;
  fs::rename(temporary, path, error);
  if (error) fail_to_write(error.message());
}

// Copied beside and renamed, so that there are all of them or none.
void RunFolder::save_assets(const std::vector<Asset>& assets) const {
  const fs::path folder = fs::path(config_.output_dir) / kAssetsFolder;
  if (assets.empty() || fs::exists(folder)) return;
  const fs::path temporary = fs::path(config_.output_dir) / ".assets.partial";
  std::error_code error;
  fs::remove_all(temporary, error);
  copy_assets(assets, temporary.string());
  fs::rename(temporary / kAssetsFolder, folder, error);
  if (error) fail_to_write(error.message());
  fs::remove_all(temporary, error);
}

}  // namespace caravan
