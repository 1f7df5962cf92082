// The vocabulary of the graph: element types, shapes, mesh axes and placements. Plain data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

enum class DType : uint8_t { f32, bf16, i32 };
inline constexpr std::array<DType, 3> kDTypes = {DType::f32, DType::bf16, DType::i32};

int64_t size_bytes(DType dtype);
std::string_view name(DType dtype);        // "f32"
DType parse_dtype(std::string_view name);  // internal error when unknown

using Shape = std::vector<int64_t>;  // row-major; {} is a scalar

int64_t num_elements(const Shape& shape);
std::string to_string(const Shape& shape);  // "[8,16]"

// Elements [offset[d], offset[d] + extent[d]) of every dim d of a tensor; both are {} for a scalar.
struct Box {
  Shape offset;
  Shape extent;
  bool operator==(const Box&) const = default;
};

struct TensorSpec {
  Shape shape;
  DType dtype = DType::f32;
  bool operator==(const TensorSpec&) const = default;
};
using TensorSpecs = std::vector<TensorSpec>;

// An axis of the mesh of processes (a *dim* is one of a tensor). Every parallelism is an axis.
enum class Axis : uint8_t { dp, ep, tp };
inline constexpr int kNumAxes = 3;
inline constexpr std::array<Axis, kNumAxes> kAxes = {Axis::dp, Axis::ep, Axis::tp};
std::string_view name(Axis axis);

// How a tensor lies along one axis of the mesh.
struct AxisPlacement {
  enum class Kind : uint8_t {
    replicate,  // every rank of the axis holds all of it
    shard,      // rank i holds the i-th equal part along `dim`
    partial,    // the tensor is the sum of what the ranks hold
  };
  Kind kind = Kind::replicate;
  int8_t dim = 0;  // for shard

  bool operator==(const AxisPlacement&) const = default;
};
inline constexpr AxisPlacement kReplicate{};
inline constexpr AxisPlacement kPartial{AxisPlacement::Kind::partial, 0};
constexpr AxisPlacement shard(int dim) {
  return {AxisPlacement::Kind::shard, static_cast<int8_t>(dim)};
}
std::string to_string(AxisPlacement placement);  // "R", "S(0)", "P"

// How a tensor lies on the whole mesh: one entry per axis, replicated unless said otherwise.
class Placement {
 public:
  AxisPlacement& operator[](Axis axis) { return axes_[static_cast<size_t>(axis)]; }
  AxisPlacement operator[](Axis axis) const { return axes_[static_cast<size_t>(axis)]; }
  Placement with(Axis axis, AxisPlacement placement) const;
  bool operator==(const Placement&) const = default;

  // Whether tp and another axis shard the same dim.
  bool is_nested() const;
  // Of a nested placement: which of them cuts first. tp does for parameters, whose shards ZeRO cuts
  // again; it comes last for tokens, which the batch has cut already. Always false otherwise.
  bool tp_is_last = false;

 private:
  std::array<AxisPlacement, kNumAxes> axes_{};
};
// "S(0)@dp P@tp", "S(0)@dp S(0)@tp(last)", "" when replicated
std::string to_string(const Placement& placement);

// "1.5 GiB", "640 KiB", "12 B".
std::string format_bytes(int64_t bytes);

}  // namespace caravan
