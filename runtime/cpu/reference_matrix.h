// What the slow specifications look at tensors with; see reference.h.
#pragma once

#include <cmath>

#include "runtime/backend.h"

namespace caravan::reference {

// A matrix view of a tensor: its last dim is the columns.
struct Matrix {
  float* data;
  int64_t rows;
  int64_t columns;
  float& operator()(int64_t i, int64_t j) const { return data[i * columns + j]; }
};

inline Matrix matrix(const TensorView& view) {
  const int64_t columns = view.shape.back();
  return {view.as<float>(), columns == 0 ? 0 : view.size() / columns, columns};
}

inline float& scalar(const TensorView& view) { return *view.as<float>(); }
inline float rounded(double value) { return static_cast<float>(value); }
inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

}  // namespace caravan::reference
