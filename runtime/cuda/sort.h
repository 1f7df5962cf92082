// Sorts tokens by a small number each has, equal ones in token order: the same result in every run.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace caravan::cuda {

// Device memory for a sort of so many tokens; cut out of a kernel's workspace.
class SortSpace {
 public:
  static int64_t bytes(int64_t num_tokens);
  SortSpace(void* memory, int64_t num_tokens);

  int32_t* keys[2];    // (T)
  int32_t* tokens[2];  // (T)
  int32_t* counts;     // (kinds of digits, tiles)
};

struct SortedTokens {
  const int32_t* keys;    // (T) rising: id - first of the token there, or `count` for other ids
  const int32_t* tokens;  // (T)
};
// By ids - first; ids beyond [first, first + count) come last.
SortedTokens sort_tokens(const int32_t* ids, int64_t num_tokens, int64_t first, int64_t count,
                         const SortSpace& space, cudaStream_t stream);

}  // namespace caravan::cuda
