// Collectives on dense tensors: packing where a dim other than the first is split, then one call
// of the communicator. See runtime/packing.h.
#include <cstring>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/error.h"
#include "runtime/packing.h"

namespace caravan::cpu {
namespace {

// Copies a part of the tensor to dense memory.
void pack_part(const Along& view, Part part, const std::byte* tensor, std::byte* dense) {
  const Strip strip = strip_of(view, part);
  for (int64_t i = 0; i < strip.count; ++i) {
    std::memcpy(dense + i * strip.run_bytes, tensor + strip.first_byte + i * strip.stride_bytes,
                static_cast<size_t>(strip.run_bytes));
  }
}

void unpack_part(const Along& view, Part part, const std::byte* dense, std::byte* tensor) {
  const Strip strip = strip_of(view, part);
  for (int64_t i = 0; i < strip.count; ++i) {
    std::memcpy(tensor + strip.first_byte + i * strip.stride_bytes, dense + i * strip.run_bytes,
                static_cast<size_t>(strip.run_bytes));
  }
}

}  // namespace

// --- all_reduce ----------------------------------------------------------------------------------

void run(const AllReduce&, const KernelArgs& args, const CpuThreads&) {
  Communicator& communicator = communicator_of(args);
  for_neighbours(args.outputs, [&](std::byte* begin, int64_t count, DType dtype) {
    communicator.all_reduce(begin, count, dtype);  // the inputs, in place
  });
}

// --- all_gather ----------------------------------------------------------------------------------

int64_t workspace_bytes(const AllGather& op, const WorkspaceQuery& query) {
  return op.dim == 0 ? 0 : scratch_bytes<std::byte>(bytes_of(query.outputs[0]));
}

void run(const AllGather& op, const KernelArgs& args, const CpuThreads&) {
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
  std::byte* blocks = Scratch(args).take<std::byte>(bytes_of(whole));
  communicator.all_gather(args.inputs[0].data, blocks, block_bytes);
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const Part part = part_of(view.length, communicator.size(), rank);
    unpack_part(view, part, blocks + rank * block_bytes, whole.as<std::byte>());
  }
}

// --- reduce_scatter ------------------------------------------------------------------------------

int64_t workspace_bytes(const ReduceScatter& op, const WorkspaceQuery& query) {
  int64_t largest = 0;  // values are packed one after another into the same memory
  for (const TensorSpec& input : query.inputs) largest = std::max(largest, bytes_of(input));
  return op.dim == 0 ? 0 : scratch_bytes<std::byte>(largest);
}

namespace {

void reduce_scatter_one(const ReduceScatter& op, const TensorView& whole, const TensorView& shard,
                        const KernelArgs& args) {
  Communicator& communicator = communicator_of(args);
  const Along view = along(whole, op.dim);
  const int64_t block = parts_of(view.length, communicator.size());
  const int64_t block_bytes = view.outer * block * view.inner_bytes;
  const std::byte* blocks = whole.as<std::byte>();
  if (op.dim != 0) {
    check_divides(view.length, communicator.size());
    std::byte* packed = Scratch(args).take<std::byte>(bytes_of(whole));
    for (int rank = 0; rank < communicator.size(); ++rank) {
      const Part part = part_of(view.length, communicator.size(), rank);
      pack_part(view, part, blocks, packed + rank * block_bytes);
    }
    blocks = packed;
  }
  communicator.reduce_scatter(blocks, shard.data, block_bytes / size_bytes(whole.dtype),
                              whole.dtype);
}

}  // namespace

void run(const ReduceScatter& op, const KernelArgs& args, const CpuThreads&) {
  for (size_t i = 0; i < args.inputs.size(); ++i) {
    reduce_scatter_one(op, args.inputs[i], args.outputs[i], args);
  }
}

// --- all_to_all ----------------------------------------------------------------------------------

int64_t workspace_bytes(const AllToAll&, const WorkspaceQuery& query) {
  // Planned shapes are rounded up: the larger one is size() blocks.
  const int64_t blocks = std::max(bytes_of(query.inputs[0]), bytes_of(query.outputs[0]));
  return 2 * scratch_bytes<std::byte>(blocks);
}

void run(const AllToAll& op, const KernelArgs& args, const CpuThreads&) {
  Communicator& communicator = communicator_of(args);
  const int size = communicator.size();
  const TensorView& input = args.inputs[0];
  const TensorView& output = args.outputs[0];
  const int64_t block_bytes = exchanged_bytes(op, input, output, size);
  Scratch scratch(args);
  std::byte* sent = scratch.take<std::byte>(block_bytes * size);
  std::byte* received = scratch.take<std::byte>(block_bytes * size);
  const Along to = along(input, op.to_dim);
  for (int rank = 0; rank < size; ++rank) {
    const Part part = part_of(to.length, size, rank);
    pack_part(to, part, input.as<std::byte>(), sent + rank * block_bytes);
  }
  communicator.all_to_all(sent, received, block_bytes);
  const Along from = along(output, op.from_dim);
  for (int rank = 0; rank < size; ++rank) {
    const Part part = part_of(from.length, size, rank);
    unpack_part(from, part, received + rank * block_bytes, output.as<std::byte>());
  }
}

// --- maximum, and rows of experts ----------------------------------------------------------------

void run(const AllReduceMax&, const KernelArgs& args, const CpuThreads&) {
  float& value = *args.outputs[0].as<float>();  // the input, in place
  value = communicator_of(args).all_reduce_max(value);
}

namespace {

// Of each rank.
std::span<const int64_t> row_bytes(const TensorView& rows, const TensorView& counts, int num_ranks,
                                   Scratch& scratch) {
  const std::span bytes(scratch.take<int64_t>(num_ranks), static_cast<size_t>(num_ranks));
  sum_row_bytes({counts.as<int32_t>(), static_cast<size_t>(counts.size())}, bytes_per_row(rows),
                bytes);
  return bytes;
}

// Each rank has an expert at least.
int64_t exchange_scratch_bytes(const TensorSpec& counts) {
  return 2 * scratch_bytes<int64_t>(num_elements(counts.shape));
}

}  // namespace

int64_t workspace_bytes(const ExchangeRows&, const WorkspaceQuery& query) {
  return exchange_scratch_bytes(query.inputs[1]);
}

void run(const ExchangeRows&, const KernelArgs& args, const CpuThreads&) {
  Communicator& communicator = communicator_of(args);
  const TensorView& rows = args.inputs[0];
  const TensorView& sent = args.inputs[1];
  const TensorView& received = args.outputs[1];
  const int size = communicator.size();
  communicator.all_to_all(sent.as<int32_t>(), received.as<int32_t>(), bytes_of(sent) / size);
  Scratch scratch(args);
  const auto send_bytes = row_bytes(rows, sent, size, scratch);
  const auto recv_bytes = row_bytes(rows, received, size, scratch);
  communicator.all_to_all_v(rows.data, send_bytes, args.outputs[0].data, recv_bytes);
}

int64_t workspace_bytes(const ReturnRows&, const WorkspaceQuery& query) {
  return exchange_scratch_bytes(query.inputs[1]);
}

void run(const ReturnRows&, const KernelArgs& args, const CpuThreads&) {
  Communicator& communicator = communicator_of(args);
  const TensorView& rows = args.inputs[0];
  const int size = communicator.size();
  Scratch scratch(args);
  const auto back = row_bytes(rows, args.inputs[1], size, scratch);
  const auto held = row_bytes(rows, args.inputs[2], size, scratch);
  communicator.all_to_all_v(rows.data, held, args.outputs[0].data, back);
}

// --- slice ---------------------------------------------------------------------------------------

void run(const Slice& op, const KernelArgs& args, const CpuThreads&) {
  const Communicator& communicator = communicator_of(args);
  const TensorView& whole = args.inputs[0];
  const Along view = along(whole, op.dim);
  const Part part = part_of(view.length, communicator.size(), communicator.rank());
  const std::byte* source = whole.as<std::byte>() + part.begin * view.inner_bytes;
  // Along dim 0 the output is planned as a view of the input: then it lies there already.
  if (op.dim == 0 && source == args.outputs[0].data) return;
  pack_part(view, part, whole.as<std::byte>(), args.outputs[0].as<std::byte>());
}

}  // namespace caravan::cpu
