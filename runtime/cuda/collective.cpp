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
#include "runtime/cuda/workspace.h"
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

class Packer {
 public:
  Packer(const KernelArgs& args, const Queue& queue) : workspace_(args), queue_(queue) {}
  std::byte* take(int64_t bytes) { return workspace_.take<std::byte>(bytes); }
  void pack(const Strip& strip, const std::byte* tensor, std::byte* dense) const {
    copy_runs(dense, strip.run_bytes, tensor + strip.first_byte, strip.stride_bytes, strip, queue_);
  }
  void unpack(const Strip& strip, const std::byte* dense, std::byte* tensor) const {
    copy_runs(tensor + strip.first_byte, strip.stride_bytes, dense, strip.run_bytes, strip, queue_);
  }

 private:
  Workspace workspace_;
  const Queue& queue_;
};

int64_t packing_bytes(int64_t bytes) { return taken_bytes<std::byte>(bytes) + kWorkspaceSlack; }

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
  return op.dim == 0 ? 0 : packing_bytes(bytes_of(query.outputs[0]));
}

void run(const AllGather& op, const KernelArgs& args, const Queue& queue) {
  Packer packer(args, queue);
  all_gather(op, args, packer);
}

// --- reduce_scatter ------------------------------------------------------------------------------

int64_t workspace_bytes(const ReduceScatter& op, const WorkspaceQuery& query) {
  int64_t largest = 0;  // values are packed one after another into the same memory
  for (const TensorSpec& input : query.inputs) largest = std::max(largest, bytes_of(input));
  return op.dim == 0 ? 0 : packing_bytes(largest);
}

void run(const ReduceScatter& op, const KernelArgs& args, const Queue& queue) {
  for (size_t i = 0; i < args.inputs.size(); ++i) {
    Packer packer(args, queue);
    reduce_scatter(op, args.inputs[i], args.outputs[i], communicator_of(args), packer);
  }
}

// --- all_to_all ----------------------------------------------------------------------------------

int64_t workspace_bytes(const AllToAll&, const WorkspaceQuery& query) {
  // Planned shapes are rounded up: the larger one is size() blocks.
  return 2 * packing_bytes(std::max(bytes_of(query.inputs[0]), bytes_of(query.outputs[0])));
}

void run(const AllToAll& op, const KernelArgs& args, const Queue& queue) {
  Packer packer(args, queue);
  all_to_all(op, args, packer);
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
  Packer(args, queue)
      .pack(strip_of(view, part), whole.as<std::byte>(), args.outputs[0].as<std::byte>());
}

}  // namespace caravan::cuda
