#include "checkpoint/box.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"

namespace caravan {
namespace {

// Elements between neighbours along each dim of a dense array.
std::vector<int64_t> strides(const Shape& extent) {
  std::vector<int64_t> result(extent.size(), 1);
  for (size_t d = extent.size(); d-- > 1;) result[d - 1] = result[d] * extent[d];
  return result;
}

}  // namespace

std::string to_string(const Box& box) {
  std::string text = "[";
  for (size_t d = 0; d < box.offset.size(); ++d) {
    absl::StrAppendFormat(&text, "%s%d:%d", d == 0 ? "" : ", ", box.offset[d],
                          box.offset[d] + box.extent[d]);
  }
  return text + "]";
}

bool lies_inside(const Box& box, const Shape& shape) {
  if (box.offset.size() != shape.size() || box.extent.size() != shape.size()) return false;
  for (size_t d = 0; d < shape.size(); ++d) {
    // Subtracting cannot overflow, adding could.
    if (box.offset[d] < 0 || box.extent[d] < 1 || box.extent[d] > shape[d]) return false;
    if (box.offset[d] > shape[d] - box.extent[d]) return false;
  }
  return true;
}

bool overlap(const Box& a, const Box& b) {
  for (size_t d = 0; d < a.offset.size(); ++d) {
    if (a.offset[d] >= b.offset[d] + b.extent[d]) return false;
    if (b.offset[d] >= a.offset[d] + a.extent[d]) return false;
  }
  return true;
}

std::optional<Box> intersect(const Box& a, const Box& b) {
  Box common;
  for (size_t d = 0; d < a.offset.size(); ++d) {
    const int64_t begin = std::max(a.offset[d], b.offset[d]);
    const int64_t end = std::min(a.offset[d] + a.extent[d], b.offset[d] + b.extent[d]);
    if (begin >= end) return std::nullopt;
    common.offset.push_back(begin);
    common.extent.push_back(end - begin);
  }
  return common;
}

SharedRuns::SharedRuns(const Box& source, const Box& destination, const Box& common) {
  const std::vector<int64_t> from = strides(source.extent), to = strides(destination.extent);
  const size_t num_dims = common.extent.size();
  for (size_t d = 0; d < num_dims; ++d) {
    source_ += (common.offset[d] - source.offset[d]) * from[d];
    destination_ += (common.offset[d] - destination.offset[d]) * to[d];
  }
  first_source_ = source_;
  // Inner dims that both arrays hold whole are one run with the dim around them.
  size_t d = num_dims;
  while (d > 0) {
    --d;
    run_ *= common.extent[d];
    if (common.extent[d] != source.extent[d] || common.extent[d] != destination.extent[d]) break;
  }
  for (size_t outer = 0; outer < d; ++outer) {
    outer_.push_back({common.extent[outer], from[outer], to[outer], 0});
  }
}

int64_t SharedRuns::source_begin() const { return first_source_; }

int64_t SharedRuns::source_end() const {
  int64_t last = first_source_;
  for (const OuterDim& dim : outer_) last += (dim.count - 1) * dim.source_stride;
  return last + run_;
}

std::optional<int64_t> SharedRuns::place(int64_t begin, int64_t count) const {
  const bool is_inside = begin >= first_source_ && begin + count <= first_source_ + run_;
  if (!outer_.empty() || !is_inside) return std::nullopt;
  return destination_ + begin - first_source_;
}

void SharedRuns::advance() {
  for (size_t d = outer_.size(); d-- > 0;) {
    OuterDim& dim = outer_[d];
    source_ += dim.source_stride;
    destination_ += dim.destination_stride;
    if (++dim.index < dim.count) return;
    source_ -= dim.count * dim.source_stride;
    destination_ -= dim.count * dim.destination_stride;
    dim.index = 0;
  }
  done_ = true;
}

void SharedRuns::copy(int64_t begin, int64_t count, const char* elements, int64_t element_bytes,
                      char* destination) {
  const int64_t end = begin + count;
  while (!done_ && source_ < end) {
    const int64_t first = std::max(source_, begin), last = std::min(source_ + run_, end);
    if (first < last) {
      std::memcpy(destination + (destination_ + first - source_) * element_bytes,
                  elements + (first - begin) * element_bytes,
                  static_cast<size_t>((last - first) * element_bytes));
    }
    if (source_ + run_ > end) return;  // the rest of this run comes with the next range
    advance();
  }
}

}  // namespace caravan
