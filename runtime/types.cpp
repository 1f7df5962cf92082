#include "runtime/types.h"

#include "absl/strings/str_join.h"
#include "runtime/error.h"

namespace caravan {

int64_t size_bytes(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::i32:
      return 4;
  }
  throw internal_error("unknown dtype");
}

std::string_view name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
  }
  throw internal_error("unknown dtype");
}

DType parse_dtype(std::string_view text) {
  for (const DType dtype : kDTypes) {
    if (text == name(dtype)) return dtype;
  }
  throw internal_error(absl::StrFormat("unknown dtype '%s'", text));
}

int64_t num_elements(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::string to_string(const Shape& shape) { return "[" + absl::StrJoin(shape, ",") + "]"; }

std::string_view name(Axis axis) {
  switch (axis) {
    case Axis::dp:
      return "dp";
    case Axis::ep:
      return "ep";
    case Axis::tp:
      return "tp";
  }
  throw internal_error("unknown axis");
}

std::string to_string(AxisPlacement placement) {
  switch (placement.kind) {
    case AxisPlacement::Kind::replicate:
      return "R";
    case AxisPlacement::Kind::shard:
      return absl::StrFormat("S(%d)", placement.dim);
    case AxisPlacement::Kind::partial:
      return "P";
  }
  throw internal_error("unknown placement");
}

Placement Placement::with(Axis axis, AxisPlacement placement) const {
  Placement copy = *this;
  copy[axis] = placement;
  return copy;
}

bool Placement::is_nested() const {
  const AxisPlacement tp = (*this)[Axis::tp];
  return tp.kind == AxisPlacement::Kind::shard &&
         ((*this)[Axis::dp] == tp || (*this)[Axis::ep] == tp);
}

std::string to_string(const Placement& placement) {
  std::string text;
  for (const Axis axis : kAxes) {
    if (placement[axis] == kReplicate) continue;
    text +=
        absl::StrFormat("%s%s@%s", text.empty() ? "" : " ", to_string(placement[axis]), name(axis));
  }
  if (placement.tp_is_last) text += "(last)";
  return text;
}

std::string format_bytes(int64_t bytes) {
  constexpr int64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024;
  const double value = static_cast<double>(bytes);
  if (bytes >= kGiB) return absl::StrFormat("%.2f GiB", value / kGiB);
  if (bytes >= kMiB) return absl::StrFormat("%.1f MiB", value / kMiB);
  if (bytes >= kKiB) return absl::StrFormat("%.1f KiB", value / kKiB);
  return absl::StrFormat("%d B", bytes);
}

}  // namespace caravan
