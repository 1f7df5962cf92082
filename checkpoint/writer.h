// Saving a checkpoint so that a crash at any moment loses nothing that was committed.
//
// Every rank writes and fsyncs its own file in a temporary folder; rank 0 gets their reports,
// writes the manifest, fsyncs it and the folder, renames the folder to its final name, fsyncs the
// parent, and only then deletes what exceeds the limit. When any rank fails, the temporary is
// removed; older checkpoints are not touched.
//
// Neither step communicates, so that a writer thread can run it; checkpoint/async_save.h has them
// run on all ranks.
// Threads: enters the HDF5 library (see data/hdf5_file.h): one thread at a time.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "checkpoint/assets.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"

namespace caravan {

struct SaveRequest {
  std::string folder = {};       // ".../checkpoints", made when missing; seen by all ranks
  std::string name = {};         // of the checkpoint in it; "": that of its step
  CheckpointHeader header = {};  // the same on all ranks; unix_time 0 means now
  // What this rank writes. A replicated tensor is given by one rank only; together the shards of
  // all ranks cover every tensor exactly once.
  std::vector<TensorShard> shards = {};
  ShardSource source = {};         // of the shards' bytes; none: their own memory
  std::vector<Asset> assets = {};  // rank 0: what goes into the checkpoint beside the tensors
  int64_t save_total_limit = 0;    // committed checkpoints to keep, 0: all
  // Part of the temporary's name, a plain name: another one in every process group that may ever
  // write this step of this run, so that none finds what another left.
  std::string attempt = "0";
};

std::string checkpoint_path(const SaveRequest& request);

struct SavedCheckpoint {
  std::string path;
  int64_t size_bytes = 0;             // of all files
  std::vector<std::string> warnings;  // old checkpoints that could not be deleted
};

// Step 1, every rank: writes this rank's file and returns its report. Does not throw: an error is
// part of the report.
std::string write_rank(const SaveRequest& request, int rank, int num_ranks);

// Step 2, rank 0, with the reports of all ranks: commits, or removes the temporary and throws.
// A checkpoint of the same step is replaced.
SavedCheckpoint commit_save(const SaveRequest& request, std::span<const std::string> reports);

}  // namespace caravan
