// How processes share a model: the sizes of the mesh, from `parallel` and the number of processes,
// and the rules that a layout keeps. Only arithmetic: what breaks a rule is refused before anything
// is planned or allocated, with the rule, all its numbers and the fix.
#pragma once

#include <cstdint>

#include "launch/config.h"

namespace caravan {

struct ParallelSizes {
  int64_t dp = 1, ep = 1, tp = 1;

  // Parts that a batch is split into: the ranks of one tp group read the same tokens.
  int64_t num_batch_parts() const { return dp * ep; }
};

// The one size that is `auto` fills what the others leave of the processes. Throws a config error
// when two are auto, or the sizes and the number of processes disagree.
ParallelSizes parallel_sizes(const ParallelConfig& config, int64_t num_processes);

// Whether the model, its batch and `moe` can be laid out so. Throws a config error when not.
void check_layout(const Config& config, const ParallelSizes& sizes);

}  // namespace caravan
