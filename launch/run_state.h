// The persistent region of a run: filling it before step 1, saving and loading it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/reader.h"
#include "launch/pipeline.h"
#include "runtime/arena.h"
#include "runtime/progress.h"

namespace caravan {

// Weights as a function of (seed, name, global element), the same in every layout. Moments are 0.
void initialize_parameters(const RunPlan& run, const Mesh& mesh, Backend& backend,
                           const Arena& arena, uint64_t seed, int num_threads, Progress& progress);

// What this rank writes of a checkpoint: parameters and optimizer state, each element by exactly
// one rank. What the data-parallel ranks hold alike they write in equal parts. Accumulators are
// empty between steps and not saved. The shards point into the arena, and so to device memory.
std::vector<TensorShard> shards_to_save(const RunPlan& run, const Mesh& mesh, const Arena& arena);

// Bytes of those shards.
int64_t bytes_to_save(const RunPlan& run, const Mesh& mesh);

// Bytes of a checkpoint over all ranks, but for the manifest and HDF5's own few kilobytes.
int64_t checkpoint_bytes(const RunPlan& run);

// Room for the copy of a checkpoint that is being written: what the configuration says, or all that
// this rank saves as far as `room_bytes` allow.
int64_t checkpoint_copy_bytes(const Config& config, const RunPlan& run, const Mesh& mesh,
                              int64_t room_bytes);

// Reads this rank's part of parameters and optimizer state from a checkpoint of any layout.
// A checkpoint error names the first tensor that is missing or differs in shape; only biases of
// routers that it does not have start at zero.
void load_persistent(const RunPlan& run, const Mesh& mesh, Backend& backend, const Arena& arena,
                     CheckpointReader& checkpoint, Progress& progress);

// Reads this rank's part of the weights, and no more of the files than that; optimizer state starts
// as at step 1.
void load_weights(const RunPlan& run, const Mesh& mesh, Backend& backend, const Arena& arena,
                  WeightSource& weights, Progress& progress);

// Bytes of the weights that this rank holds, as they are stored in a source.
int64_t share_bytes(const RunPlan& run, const Mesh& mesh, const WeightSource& weights);

int64_t num_parameters(const RunPlan& run);  // elements of all weights, over all ranks

}  // namespace caravan
