// Gradient buckets: many small reductions become few large ones, without a copy.
#pragma once

#include "runtime/graph.h"

namespace caravan {

// Merges all_reduce and reduce_scatter nodes of parameter gradients on the same axis, in the order
// in which backward finishes them, until a bucket holds `bucket_bytes`. The members of an
// all_reduce are planned one after another in memory, so that the bucket is one call. A bucket
// starts when its last member is ready. Sums do not change: each element is reduced as before.
Graph bucket_gradients(Graph graph, int64_t bucket_bytes);

}  // namespace caravan
