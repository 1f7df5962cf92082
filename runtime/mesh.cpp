#include "runtime/mesh.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace caravan {
namespace {

// The order in which several axes split one dim: see local_box.
std::array<Axis, kNumAxes> nesting(const Placement& placement) {
  if (placement.tp_is_last) return {Axis::ep, Axis::dp, Axis::tp};
  return {Axis::tp, Axis::ep, Axis::dp};
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

int Mesh::coordinate(Axis axis) const {
  int below = 1;  // ranks per step along the axis
  for (int i = static_cast<int>(axis) + 1; i < kNumAxes; ++i)
    below *= sizes[static_cast<size_t>(i)];
  return rank / below % size(axis);
}

std::string to_string(const Mesh& mesh) {
  std::string text;
  for (const Axis axis : kAxes) {
    if (mesh.size(axis) == 1) continue;
    text += absl::StrFormat("%s%s %d", text.empty() ? "" : " x ", name(axis), mesh.size(axis));
  }
  return text.empty() ? "1 process" : text;
}

Shape local_shape(const Shape& global, const Placement& placement, const Mesh& mesh) {
  Shape local = global;
  for (const Axis axis : nesting(placement)) {
    if (placement[axis].kind != AxisPlacement::Kind::shard) continue;
    int64_t& size = local[static_cast<size_t>(placement[axis].dim)];
    size = divide_up(size, mesh.size(axis));
  }
  return local;
}

Box local_box(const Shape& global, const Placement& placement, const Mesh& mesh) {
  Box box{Shape(global.size(), 0), global};
  for (const Axis axis : nesting(placement)) {
    if (placement[axis].kind != AxisPlacement::Kind::shard) continue;
    const size_t dim = static_cast<size_t>(placement[axis].dim);
    const int64_t part = divide_up(box.extent[dim], mesh.size(axis));
    const int64_t begin = std::min(box.extent[dim], part * mesh.coordinate(axis));
    box.offset[dim] += begin;
    box.extent[dim] = std::min(part, box.extent[dim] - begin);
  }
  return box;
}

}  // namespace caravan
