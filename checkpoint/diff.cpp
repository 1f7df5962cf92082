#include "checkpoint/diff.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int64_t kSliceBytes = int64_t{4} << 20;

// The value of the element at `bytes`, exact in a double for all dtypes.
double value_at(const char* bytes, DType dtype) {
  uint32_t bits = 0;
  std::memcpy(&bits, bytes, static_cast<size_t>(size_bytes(dtype)));
  switch (dtype) {
    case DType::f32:
      return std::bit_cast<float>(bits);
    case DType::bf16:
      return std::bit_cast<float>(bits << 16);
    case DType::i32:
      return std::bit_cast<int32_t>(bits);
  }
  throw internal_error("unknown dtype");
}

void compare_elements(const char* a, const char* b, int64_t count, DType dtype,
                      TensorDifference& difference) {
  const auto element_bytes = static_cast<size_t>(size_bytes(dtype));
  difference.num_elements += count;
  if (std::memcmp(a, b, static_cast<size_t>(count) * element_bytes) == 0) return;
  for (int64_t i = 0; i < count; ++i, a += element_bytes, b += element_bytes) {
    if (std::memcmp(a, b, element_bytes) == 0) continue;
    ++difference.num_different;
    const double distance = std::abs(value_at(a, dtype) - value_at(b, dtype));
    if (std::isnan(distance)) {
      ++difference.num_nan;
    } else {
      difference.largest = std::max(difference.largest, distance);
    }
  }
}

}  // namespace

void for_each_slice(const Shape& shape, int64_t max_elements,
                    const std::function<void(const Box&)>& visit) {
  // The outermost dim of which one step fits; the dims around it are walked one index at a time.
  size_t split = shape.size();
  int64_t step_elements = 1;
  while (split > 0 && step_elements * shape[split - 1] <= max_elements) {
    step_elements *= shape[--split];
  }
  Box box{Shape(shape.size(), 0), shape};
  if (split == 0) return visit(box);  // all of it
  const size_t cut = split - 1;
  const int64_t rows = std::max<int64_t>(1, max_elements / step_elements);
  for (size_t d = 0; d < cut; ++d) box.extent[d] = 1;
  for (;;) {
    for (box.offset[cut] = 0; box.offset[cut] < shape[cut]; box.offset[cut] += rows) {
      box.extent[cut] = std::min(rows, shape[cut] - box.offset[cut]);
      visit(box);
    }
    size_t d = cut;
    while (d > 0 && ++box.offset[d - 1] == shape[d - 1]) box.offset[--d] = 0;
    if (d == 0) return;
  }
}

TensorDifference compare_tensor(CheckpointReader& a, CheckpointReader& b, const std::string& name) {
  const TensorRecord& tensor = a.tensor(name);
  check(b.tensor(name).dtype == tensor.dtype && b.tensor(name).shape == tensor.shape,
        "tensors '%s' of two kinds are compared", name);
  const int64_t element_bytes = size_bytes(tensor.dtype);
  const int64_t max_elements = kSliceBytes / element_bytes;
  std::vector<char> left, right;
  TensorDifference difference;
  for_each_slice(tensor.shape, max_elements, [&](const Box& box) {
    const int64_t count = num_elements(box.extent);
    left.resize(static_cast<size_t>(count * element_bytes));
    right.resize(left.size());
    a.read({name, tensor.dtype, tensor.shape, box.offset, box.extent, left.data()});
    b.read({name, tensor.dtype, tensor.shape, box.offset, box.extent, right.data()});
    compare_elements(left.data(), right.data(), count, tensor.dtype, difference);
  });
  return difference;
}

}  // namespace caravan
