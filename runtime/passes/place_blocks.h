// Offsets for blocks whose lifetimes are known: the packing problem inside plan_memory.
#pragma once

#include <vector>

#include "runtime/program.h"

namespace caravan {

// Sets the offset of every block so that no two that are live at one step overlap, and returns how
// high they reach: within a thousandth or 64 KiB of `lower_bound` (the bytes live at the peak) where
// a bounded search finds that, about a second at most. The same on every rank.
int64_t place_blocks(std::vector<Block>& blocks, int64_t lower_bound);

}  // namespace caravan
