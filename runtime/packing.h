// What collectives on any device share: which bytes travel, and where the parts of a tensor lie.
//
// Dim 0 may not divide by the axis: then every rank's block is ceil(rows / size) rows, and storage
// that the blocks cover is padded to size blocks (Value::padding_elements; a shard's own storage
// is a whole block), so blocks travel whole and what is beyond a view is never read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/backend.h"
#include "runtime/error.h"

namespace caravan {

// A dense tensor seen along one dim: (outer, length, inner) with inner in bytes.
struct Along {
  int64_t outer = 1;
  int64_t length = 1;
  int64_t inner_bytes = 1;
};

inline Along along(const TensorView& tensor, int dim) {
  Along view{.inner_bytes = size_bytes(tensor.dtype)};
  for (int i = 0; i < static_cast<int>(tensor.shape.size()); ++i) {
    (i < dim ? view.outer : i > dim ? view.inner_bytes : view.length) *= tensor.dim(i);
  }
  return view;
}

inline int64_t parts_of(int64_t length, int size) { return (length + size - 1) / size; }

// The part of rank `rank` along the dim, of `size` parts.
struct Part {
  int64_t begin;
  int64_t end;
};

inline Part part_of(int64_t length, int size, int rank) {
  const int64_t step = parts_of(length, size);
  return {std::min(length, step * rank), std::min(length, step * (rank + 1))};
}

// A part of a tensor as runs of bytes: `count` of them, each `run_bytes` long, `stride_bytes` apart
// from the `first_byte` on. Packed they lie one after another: (outer, part, inner).
struct Strip {
  int64_t first_byte;
  int64_t stride_bytes;
  int64_t run_bytes;
  int64_t count;
};

inline Strip strip_of(const Along& view, Part part) {
  return {part.begin * view.inner_bytes, view.length * view.inner_bytes,
          (part.end - part.begin) * view.inner_bytes, view.outer};
}

inline int64_t bytes_of(const TensorSpec& spec) {
  return num_elements(spec.shape) * size_bytes(spec.dtype);
}
inline int64_t bytes_of(const TensorView& view) { return view.size() * size_bytes(view.dtype); }

inline Communicator& communicator_of(const KernelArgs& args) {
  check(args.communicator != nullptr, "[collective] there is no communicator for the axis");
  return *args.communicator;
}

// Only dim 0 may be split unevenly: along the others the packed blocks would not be dense.
inline void check_divides(int64_t length, int size) {
  check(length % size == 0, "[collective] a dim of %d does not divide by %d ranks", length, size);
}

// action(begin, count, dtype) for the values. Those that follow one another, but for the gap of
// alignment, travel as one: the gap's bytes are nobody's, and what they hold is summed unseen.
template <typename Action>
void for_neighbours(std::span<const TensorView> values, Action action) {
  constexpr int64_t kLargestGap = 64;
  for (size_t first = 0; first < values.size();) {
    std::byte* const begin = values[first].as<std::byte>();
    const std::byte* end = begin + bytes_of(values[first]);
    size_t next = first + 1;
    for (; next < values.size() && values[next].dtype == values[first].dtype; ++next) {
      const int64_t gap = values[next].as<std::byte>() - end;
      if (gap < 0 || gap >= kLargestGap) break;
      end = values[next].as<std::byte>() + bytes_of(values[next]);
    }
    const DType dtype = values[first].dtype;
    action(begin, (end - begin) / size_bytes(dtype), dtype);
    first = next;
  }
}

// Bytes that a rank sends to each other one: its part along `from_dim`, cut along `to_dim`.
inline int64_t exchanged_bytes(const AllToAll& op, const TensorView& input,
                               const TensorView& output, int size) {
  int64_t bytes = size_bytes(input.dtype);
  for (int i = 0; i < static_cast<int>(input.shape.size()); ++i) {
    const bool split = i == op.from_dim || i == op.to_dim;
    const int64_t whole = i == op.from_dim ? output.dim(i) : input.dim(i);
    bytes *= split ? parts_of(whole, size) : whole;
  }
  return bytes;
}

// Bytes of each rank's rows, into `bytes` (ranks); counts (ranks * E): how many rows there are for
// each expert of each rank.
inline void sum_row_bytes(std::span<const int32_t> counts, int64_t bytes_per_row,
                          std::span<int64_t> bytes) {
  const size_t experts = counts.size() / bytes.size();
  for (size_t rank = 0; rank < bytes.size(); ++rank) {
    bytes[rank] = 0;
    for (size_t e = 0; e < experts; ++e) bytes[rank] += counts[rank * experts + e] * bytes_per_row;
  }
}

inline int64_t bytes_per_row(const TensorView& rows) {
  return rows.dim(1) * size_bytes(rows.dtype);
}

}  // namespace caravan
