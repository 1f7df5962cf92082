// Going on from a checkpoint: whether the configuration allows it, and reading it on all ranks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/log.h"
#include "launch/run_folder.h"
#include "launch/session.h"
#include "launch/training_state.h"

namespace caravan {

struct ResumeOptions {
  // Goes on also when keys have changed that make the run another than the uninterrupted one.
  bool allow_config_change = false;
  std::string data_identity = {};  // see DataFeed::identity; the same on all ranks
};

struct ResumedRun {
  std::string path;
  TrainingState state;
};

// Collective. Loads the first of the checkpoints in `choice` (rank 0's counts) that every rank can
// read whole, and says which were passed over. Nothing when there is none to go on from. Errors: a
// config error names the key that changed, a data error says that the data has changed behind its
// path, a checkpoint error what is damaged.
std::optional<ResumedRun> resume_run(const ResumeChoice& choice, Session& session, Console* console,
                                     const ResumeOptions& options);

}  // namespace caravan
