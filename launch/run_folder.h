// The folder of a run, <output_dir>: config.yaml (effective), metrics.jsonl, checkpoints/.
// All functions are for rank 0 alone, but for the paths.
#pragma once

#include <string>

#include "launch/config.h"

namespace caravan {

std::string checkpoints_folder(const Config& config);
std::string metrics_path(const Config& config);

// Makes the folder, removes what killed saves left, and saves the effective configuration. A config
// error with path and reason when it cannot be written to.
void prepare_run_folder(const Config& config);

// The checkpoint that training starts from, "" for none. A config error when the folder has
// checkpoints and the configuration says not to use them: they would be lost among the new ones.
// What is not usable is named in `warnings`.
std::string checkpoint_to_resume(const Config& config, std::vector<std::string>& warnings);

}  // namespace caravan
