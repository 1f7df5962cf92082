// Saving a checkpoint so that a crash at any moment loses nothing that was committed.
//
// Rank 0 makes a temporary folder; every rank writes and fsyncs its own file; rank 0 gathers what
// they wrote, writes the manifest, fsyncs it and the folder, renames the folder to its final name,
// fsyncs the parent, and only then deletes what exceeds the limit. When any rank fails, the
// temporary is removed and all ranks get the error; older checkpoints are not touched.
//
// save_checkpoint() runs all of it and blocks. The three steps that it is made of neither
// communicate nor share state, so that a writer thread can run them.
// Threads: enters the HDF5 library (see data/hdf5_file.h): one thread at a time.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"

namespace caravan {

// The ranks that save together. Both functions are collective and throw when a peer is lost.
struct RankGroup {
  int rank = 0;
  int num_ranks = 1;
  // To rank 0: one text per rank, in the order of ranks. Elsewhere the result is not used.
  std::function<std::vector<std::string>(const std::string&)> gather;
  // From rank 0: its text, on every rank.
  std::function<std::string(const std::string&)> broadcast;
};
RankGroup single_rank();

struct SaveRequest {
  std::string folder;       // ".../checkpoints", made when missing; seen by all ranks
  CheckpointHeader header;  // the same on all ranks; unix_time 0 means now
  // What this rank writes. A replicated tensor is given by one rank only; together the shards of
  // all ranks cover every tensor exactly once.
  std::vector<TensorShard> shards;
  int64_t save_total_limit = 0;  // committed checkpoints to keep, 0: all
};

struct SavedCheckpoint {
  std::string path;
  int64_t size_bytes = 0;             // of all files (rank 0)
  std::vector<std::string> warnings;  // old checkpoints that could not be deleted (rank 0)
};

// Collective. A checkpoint of the same step is replaced.
SavedCheckpoint save_checkpoint(const SaveRequest& request, const RankGroup& group);

// Step 1, rank 0: an empty temporary folder; returns its path.
std::string begin_save(const SaveRequest& request);

// Step 2, every rank after step 1: writes this rank's file and returns its report. Does not throw:
// an error is part of the report.
std::string write_rank(const SaveRequest& request, int rank, int num_ranks);

// Step 3, rank 0, with the reports of all ranks: commits, or removes the temporary and throws.
SavedCheckpoint commit_save(const SaveRequest& request, std::span<const std::string> reports);

}  // namespace caravan
