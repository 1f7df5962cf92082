// The one definition of a sum over ranks, for every communicator on host memory: elements are added
// in rank order, so a sum has the same bits on each rank, from run to run, however the transfer is
// cut into pieces, and on threads as over MPI.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/types.h"

namespace caravan {

// out[i] = parts[0][i] + parts[1][i] + ... for `count` elements; parts[r] belongs to rank r.
// bf16 is added in f32 and rounded once, to nearest even; i32 wraps around. `out` may be one of
// the parts. At least one part.
void sum_in_rank_order(std::span<const void* const> parts, void* out, int64_t count, DType dtype);

}  // namespace caravan
