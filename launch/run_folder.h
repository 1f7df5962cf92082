// The folder of a run, <output_dir>: config.yaml (effective), metrics.jsonl, checkpoints/, assets/
// (checkpoint/assets.h), lock, error.json (launch/failure.h).
// Made and held by rank 0 alone; the paths are for everybody.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/assets.h"
#include "launch/config.h"
#include "launch/run_lock.h"

namespace caravan {

std::string checkpoints_folder(const Config& config);
std::string metrics_path(const Config& config);
// What goes into each checkpoint; once save_assets() has been called.
std::vector<Asset> run_assets(const Config& config);

// What training may go on from.
struct ResumeChoice {
  // The best first; the others for when that one turns out to be damaged. None: a new start.
  std::vector<std::string> paths;
  std::vector<std::string> warnings;  // newer ones that are passed over, and why
};

class RunFolder {
 public:
  // Makes the folder, locks it and removes what killed saves left. A config error with path and
  // reason when it cannot be written to, or when another process trains in it.
  explicit RunFolder(const Config& config);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  // What training starts from. Errors, so that nothing is lost: there are checkpoints, but the
  // configuration says not to use them, or names an older one than the newest, or none of them can
  // be read.
  ResumeChoice choose_resume() const;

  // Once nothing can fail any more: the configuration in effect, as config.yaml.
  void save_config() const;
  // The files that go with the model, as folder `assets`; those that are there already stay.
  void save_assets(const std::vector<Asset>& assets) const;

 private:
  [[noreturn]] void fail_to_write(const std::string& reason) const;
  void lock();

  Config config_;
  std::optional<RunLock> lock_;
};

}  // namespace caravan
