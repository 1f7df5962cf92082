// The folder of a run, <output_dir>: config.yaml (effective), metrics.jsonl, checkpoints/, lock,
// error.json (launch/failure.h).
// Made and held by rank 0 alone; the paths are for everybody.
#pragma once

#include <string>
#include <vector>

#include "launch/config.h"

namespace caravan {

std::string checkpoints_folder(const Config& config);
std::string metrics_path(const Config& config);

class RunFolder {
 public:
  // Makes the folder, locks it and removes what killed saves left. A config error with path and
  // reason when it cannot be written to, or when another process trains in it.
  explicit RunFolder(const Config& config);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  // The checkpoint that training starts from, "" for none. Errors, so that nothing is lost: there
  // are checkpoints, but the configuration says not to use them, or names an older one than the
  // newest, or none of them can be read. What is passed over is named in `warnings`.
  std::string checkpoint_to_resume(std::vector<std::string>& warnings) const;

  // Once nothing can fail any more: the configuration in effect, as config.yaml.
  void save_config() const;

 private:
  [[noreturn]] void fail_to_write(const std::string& reason) const;
  void lock();

  Config config_;
  int lock_ = -1;
};

}  // namespace caravan
