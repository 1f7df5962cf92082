// Where weights come from: files that hold them in any layout, of which a rank asks for its own
// parts. Checkpoints are one kind (checkpoint/reader.h), Hugging Face folders another
// (checkpoint/hf_weights.h).
#pragma once

#include <cstdint>
#include <string>

#include "runtime/types.h"

namespace caravan {

// A box of a global tensor that is wanted in host memory, row-major and dense.
struct TensorRequest {
  std::string name;
  DType dtype = DType::f32;  // must be what the source gives, and so must global_shape
  Shape global_shape;
  Shape offset;
  Shape extent;
  void* data = nullptr;
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual const std::string& path() const = 0;
  // Fills request.data. Throws a checkpoint error that names file and tensor; after it the content
  // is undefined and must not be used.
  virtual void read(const TensorRequest& request) = 0;
  virtual int64_t bytes_read() const = 0;  // of tensors, from files, so far
  // Bytes of an element in the files.
  virtual int64_t stored_bytes(const std::string& tensor) const = 0;
};

}  // namespace caravan
