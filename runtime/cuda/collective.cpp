// Collectives on dense tensors in device memory: packing where a dim other than the first is split,
// then one call of the communicator. See runtime/packing.h.
//
// An asynchronous communicator (NCCL) puts its work on the queue's stream, as the packing does; any
// other waits for the stream itself before it touches the bytes. What needs numbers on the host
// (maximum, counts of rows) waits here.
#include <algorithm>

#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/staging.h"
#include "runtime/packing.h"

namespace caravan::cuda {
namespace {

// Copies runs of bytes; pitches are bytes from one to the next.
void copy_runs(std::byte* to, int64_t to_pitch, const std::byte* from, int64_t from_pitch,
               const Strip& strip, const Queue& queue) {
  if (strip.run_bytes == 0 || strip.count == 0) return;
  if (strip.count == 1) {  // of any length; rows of 2-D copies end at 2 GiB
    check_cuda(cudaMemcpyAsync(to, from, static_cast<size_t>(strip.run_bytes),
                               cudaMemcpyDeviceToDevice, queue.stream),
               "packing");
    return;
  }
  check_cuda(
      cudaMemcpy2DAsync(to, static_cast<size_t>(to_pitch), from, static_cast<size_t>(from_pitch),
                        static_cast<size_t>(strip.run_bytes), static_cast<size_t>(strip.count),
                        cudaMemcpyDeviceToDevice, queue.stream),
      "packing");
}

// Copies a part of the tensor to dense memory.
void pack_part(const Along& view, Part part, const std::byte* tensor, std::byte* dense,
               const Queue& queue) {
  const Strip strip = strip_of(view, part);
  copy_runs(dense, strip.run_bytes, tensor + strip.first_byte, strip.stride_bytes, strip, queue);
}

void unpack_part(const Along& view, Part part, const std::byte* dense, std::byte* tensor,
                 const Queue& queue) {
  const Strip strip = strip_of(view, part);
  copy_runs(tensor + strip.first_byte, strip.stride_bytes, dense, strip.run_bytes, strip, queue);
}

constexpr int64_t kAlignment = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// The workspace from `offset` on, when it has so many bytes.
std::byte* workspace(const KernelArgs& args, int64_t offset, int64_t bytes) {
  check(offset + bytes <= args.workspace_bytes,
        "[cuda] workspace: %d bytes are wanted, there are %d", offset + bytes,
        args.workspace_bytes);
  return static_cast<std::byte*>(args.workspace) + offset;
}

}  // namespace

// --- all_reduce ----------------------------------------------------------------------------------

void run(const AllReduce&, const KernelArgs& args, const Queue&) {
  Communicator& communicator = communicator_of(args);
  for_neighbours(args.outputs, [&](std::byte* begin, int64_t count, DType dtype) {
    communicator.all_reduce(begin, count, dtype);  // the inputs, in place
  });
}

// --- all_gather ----------------------------------------------------------------------------------

int64_t workspace_bytes(const AllGather& op, const WorkspaceQuery& query) {
  return op.dim == 0 ? 0 : bytes_of(query.outputs[0]);
}

void run(const AllGather& op, const KernelArgs& args, const Queue& queue) {
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
  std::byte* blocks = workspace(args, 0, bytes_of(whole));
  communicator.all_gather(args.inputs[0].data, blocks, block_bytes);
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const Part part = part_of(view.length, communicator.size(), rank);
    unpack_part(view, part, blocks + rank * block_bytes, whole.as<std::byte>(), queue);
  }
}

// --- reduce_scatter ------------------------------------------------------------------------------

int64_t workspace_bytes(const ReduceScatter& op, const WorkspaceQuery& query) {
  int64_t largest = 0;  // values are packed one after another into the same memory
  for (const TensorSpec& input : query.inputs) largest = std::max(largest, bytes_of(input));
  return op.dim == 0 ? 0 : largest;
}

namespace {

void reduce_scatter_one(const ReduceScatter& op, const TensorView& whole, const TensorView& shard,
                        const KernelArgs& args, const Queue& queue) {
  Communicator& communicator = communicator_of(args);
  const Along view = along(whole, op.dim);
  const int64_t block = parts_of(view.length, communicator.size());
  const int64_t block_bytes = view.outer * block * view.inner_bytes;
  const std::byte* blocks = whole.as<std::byte>();
  if (op.dim != 0) {
    check_divides(view.length, communicator.size());
    std::byte* packed = workspace(args, 0, bytes_of(whole));
    for (int rank = 0; rank < communicator.size(); ++rank) {
      const Part part = part_of(view.length, communicator.size(), rank);
      pack_part(view, part, blocks, packed + rank * block_bytes, queue);
    }
    blocks = packed;
  }
  communicator.reduce_scatter(blocks, shard.data, block_bytes / size_bytes(whole.dtype),
                              whole.dtype);
}

}  // namespace

void run(const ReduceScatter& op, const KernelArgs& args, const Queue& queue) {
  for (size_t i = 0; i < args.inputs.size(); ++i) {
    reduce_scatter_one(op, args.inputs[i], args.outputs[i], args, queue);
  }
}

// --- all_to_all ----------------------------------------------------------------------------------

int64_t workspace_bytes(const AllToAll&, const WorkspaceQuery& query) {
  // Planned shapes are rounded up: the larger one is size() blocks.
  return 2 * aligned(std::max(bytes_of(query.inputs[0]), bytes_of(query.outputs[0])));
}

void run(const AllToAll& op, const KernelArgs& args, const Queue& queue) {
  Communicator& communicator = communicator_of(args);
  const int size = communicator.size();
  const TensorView& input = args.inputs[0];
  const TensorView& output = args.outputs[0];
  const int64_t block_bytes = exchanged_bytes(op, input, output, size);
  const int64_t all_bytes = block_bytes * size;
  std::byte* sent = workspace(args, 0, all_bytes);
  std::byte* received = workspace(args, aligned(all_bytes), all_bytes);
  const Along to = along(input, op.to_dim);
  for (int rank = 0; rank < size; ++rank) {
    pack_part(to, part_of(to.length, size, rank), input.as<std::byte>(), sent + rank * block_bytes,
              queue);
  }
  communicator.all_to_all(sent, received, block_bytes);
  const Along from = along(output, op.from_dim);
  for (int rank = 0; rank < size; ++rank) {
    unpack_part(from, part_of(from.length, size, rank), received + rank * block_bytes,
                output.as<std::byte>(), queue);
  }
}

// --- maximum, and rows of experts ----------------------------------------------------------------

void run(const AllReduceMax&, const KernelArgs& args, const Queue& queue) {
  void* device = args.outputs[0].data;  // the input, in place
  float value = 0;
  queue.host->staging.copy_out(&value, device, sizeof(value), queue.stream);
  value = communicator_of(args).all_reduce_max(value);
  queue.host->staging.copy_in(device, &value, sizeof(value), queue.stream);
}

namespace {

// Bytes that go to or come from each rank; waits for the stream.
void read_row_bytes(const TensorView& counts, int64_t row_bytes, int num_ranks,
                    std::vector<int64_t>& bytes, const Queue& queue) {
  std::vector<int32_t>& numbers = queue.host->counts;
  numbers.resize(static_cast<size_t>(counts.size()));
  queue.host->staging.copy_out(numbers.data(), counts.data, bytes_of(counts), queue.stream);
  bytes.resize(static_cast<size_t>(num_ranks));
  sum_row_bytes(numbers, row_bytes, bytes);
}

}  // namespace

void run(const ExchangeRows&, const KernelArgs& args, const Queue& queue) {
  Communicator& communicator = communicator_of(args);
  const TensorView& rows = args.inputs[0];
  const TensorView& sent = args.inputs[1];
  const TensorView& received = args.outputs[1];
  const int size = communicator.size();
  communicator.all_to_all(sent.data, received.data, bytes_of(sent) / size);
  Host& host = *queue.host;
  read_row_bytes(sent, bytes_per_row(rows), size, host.send_bytes, queue);
  read_row_bytes(received, bytes_per_row(rows), size, host.recv_bytes, queue);
  communicator.all_to_all_v(rows.data, host.send_bytes, args.outputs[0].data, host.recv_bytes);
}

void run(const ReturnRows&, const KernelArgs& args, const Queue& queue) {
  Communicator& communicator = communicator_of(args);
  const TensorView& rows = args.inputs[0];
  const int size = communicator.size();
  Host& host = *queue.host;
  read_row_bytes(args.inputs[2], bytes_per_row(rows), size, host.send_bytes, queue);
  read_row_bytes(args.inputs[1], bytes_per_row(rows), size, host.recv_bytes, queue);
  communicator.all_to_all_v(rows.data, host.send_bytes, args.outputs[0].data, host.recv_bytes);
}

// --- slice ---------------------------------------------------------------------------------------

void run(const Slice& op, const KernelArgs& args, const Queue& queue) {
  const Communicator& communicator = communicator_of(args);
  const TensorView& whole = args.inputs[0];
  const Along view = along(whole, op.dim);
  const Part part = part_of(view.length, communicator.size(), communicator.rank());
  const std::byte* source = whole.as<std::byte>() + part.begin * view.inner_bytes;
  // Along dim 0 the output is planned as a view of the input: then it lies there already.
  if (op.dim == 0 && source == args.outputs[0].data) return;
  pack_part(view, part, whole.as<std::byte>(), args.outputs[0].as<std::byte>(), queue);
}

}  // namespace caravan::cuda
