// The folder that holds the checkpoints of a run: names, finding the newest commit by scanning,
// leftovers, retention. A checkpoint is committed when it has its final name, and only a rename
// gives it that. Nothing here opens HDF5 files.
//
//   checkpoints/step-00001000/{rank-00000-of-00002.h5, ..., manifest.json}
//   checkpoints/.tmp-step-00002000-RUNID/...       being written, or left over from a crash
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/manifest.h"

namespace caravan {

std::string step_folder_name(int64_t step);                       // "step-00001000"
std::optional<int64_t> parse_step_folder(std::string_view name);  // of exactly that form
std::string temporary_folder_name(int64_t step, const std::string& run_id);
std::string rank_file_name(int rank, int num_ranks);  // "rank-00000-of-00008.h5"

struct StepFolder {
  std::string path;
  int64_t step = 0;
};

// All step folders, oldest first, valid or not. None when `folder` does not exist.
std::vector<StepFolder> list_step_folders(const std::string& folder);

// The manifest of a checkpoint whose files are all there with their sizes; an error otherwise.
// Cheap: reads no tensors.
Manifest read_committed(const std::string& checkpoint);

struct LatestCheckpoint {
  std::string path;  // "" when there is none
  int64_t step = -1;
  std::vector<std::string> ignored;  // one line for each newer folder that is not usable
};

// The checkpoint of the highest step that read_committed() accepts.
LatestCheckpoint find_latest(const std::string& folder);

// What crashed saves and deletions left over, or what a process saves or deletes right now.
std::vector<std::string> list_temporaries(const std::string& folder);

// Removes what crashed saves and deletions left over; says what. To be called at start by one rank,
// when no other run uses the folder.
std::vector<std::string> clean_temporaries(const std::string& folder);

// The committed checkpoints beyond the `limit` newest ones (0: none), oldest first. Folders that
// are not valid checkpoints are neither counted nor listed.
std::vector<StepFolder> beyond_limit(const std::string& folder, int64_t limit);

// Renames the checkpoint to a temporary, so that a crash leaves no half of it, and removes that.
void delete_checkpoint(const std::string& folder, const StepFolder& entry);

// Deletes what is beyond the limit, but not `keep`. Returns one line for each that could not be
// deleted.
std::vector<std::string> apply_limit(const std::string& folder, int64_t limit,
                                     const std::string& keep);

}  // namespace caravan
