// What differs between two checkpoints, tensor by tensor. The layouts in which they were saved may
// differ: global tensors are compared, in slices, by the bits of their elements.
//
// Memory: two slices of at most 4 MiB beside the readers.
// Threads: as CheckpointReader. Errors: those of CheckpointReader, when a file is damaged.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/reader.h"

namespace caravan {

struct TensorDifference {
  int64_t num_elements = 0;
  int64_t num_different = 0;  // in their bits: 0.0 and -0.0 differ, a NaN equals its copy
  int64_t num_nan = 0;        // of the different ones, those with a NaN on either side
  double largest = 0;         // absolute difference of the others; infinity is possible
  bool is_same() const { return num_different == 0; }
};

// A tensor that both have with one dtype and shape.
TensorDifference compare_tensor(CheckpointReader& a, CheckpointReader& b, const std::string& name);

// Calls visit for consecutive boxes that cover `shape`, in row-major order, each dense in memory
// and of at most `max_elements` elements.
void for_each_slice(const Shape& shape, int64_t max_elements,
                    const std::function<void(const Box&)>& visit);

}  // namespace caravan
