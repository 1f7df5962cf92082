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

// --- the collectives -----------------------------------------------------------------------------
// A Packer is a device's way to move bytes in its memory, and scratch memory of the op:
//   std::byte* take(int64_t bytes);
//   void pack(const Strip& strip, const std::byte* tensor, std::byte* dense);
//   void unpack(const Strip& strip, const std::byte* dense, std::byte* tensor);

template <typename Packer>
void all_gather(const AllGather& op, const KernelArgs& args, Packer& packer) {
  Communicator& communicator = communicator_of(args);
  const TensorView& whole = args.outputs[0];
  const Along view = along(whole, op.dim);
  const int64_t block = parts_of(view.length, communicator.size());
  const int64_t block_bytes = view.outer * block * view.inner_bytes;
  if (op.dim == 0) {
    communicator.all_gather(args.inputs[0].data, whole.data, block_bytes);
    return;
  }
  check_divides(view.length, communicator.size());
  std::byte* blocks = packer.take(bytes_of(whole));
  communicator.all_gather(args.inputs[0].data, blocks, block_bytes);
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const Part part = part_of(view.length, communicator.size(), rank);
    packer.unpack(strip_of(view, part), blocks + rank * block_bytes, whole.as<std::byte>());
  }
}

// Of one value; several are packed one after another into the same memory.
template <typename Packer>
void reduce_scatter(const ReduceScatter& op, const TensorView& whole, const TensorView& shard,
                    Communicator& communicator, Packer& packer) {
  const Along view = along(whole, op.dim);
  const int64_t block = parts_of(view.length, communicator.size());
  const int64_t block_bytes = view.outer * block * view.inner_bytes;
  const std::byte* blocks = whole.as<std::byte>();
  if (op.dim != 0) {
    check_divides(view.length, communicator.size());
    std::byte* packed = packer.take(bytes_of(whole));
    for (int rank = 0; rank < communicator.size(); ++rank) {
      const Part part = part_of(view.length, communicator.size(), rank);
      packer.pack(strip_of(view, part), blocks, packed + rank * block_bytes);
    }
    blocks = packed;
  }
  communicator.reduce_scatter(blocks, shard.data, block_bytes / size_bytes(whole.dtype),
                              whole.dtype);
}

template <typename Packer>
void all_to_all(const AllToAll& op, const KernelArgs& args, Packer& packer) {
  Communicator& communicator = communicator_of(args);
  const int size = communicator.size();
  const TensorView& input = args.inputs[0];
  const TensorView& output = args.outputs[0];
  const int64_t block_bytes = exchanged_bytes(op, input, output, size);
  std::byte* sent = packer.take(block_bytes * size);
  std::byte* received = packer.take(block_bytes * size);
  const Along to = along(input, op.to_dim);
  for (int rank = 0; rank < size; ++rank) {
    const Part part = part_of(to.length, size, rank);
    packer.pack(strip_of(to, part), input.as<std::byte>(), sent + rank * block_bytes);
  }
  communicator.all_to_all(sent, received, block_bytes);
  const Along from = along(output, op.from_dim);
  for (int rank = 0; rank < size; ++rank) {
    const Part part = part_of(from.length, size, rank);
    packer.unpack(strip_of(from, part), received + rank * block_bytes, output.as<std::byte>());
  }
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
