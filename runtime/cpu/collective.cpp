// Collectives on dense tensors: packing where a dim other than the first is split, then one call
// of the communicator. See runtime/packing.h.
#include <cstring>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/error.h"
#include "runtime/packing.h"

namespace caravan::cpu {
namespace {

class Packer {
 public:
  explicit Packer(const KernelArgs& args) : scratch_(args) {}
  std::byte* take(int64_t bytes) { return scratch_.take<std::byte>(bytes); }
  static void pack(const Strip& strip, const std::byte* tensor, std::byte* dense) {
    for (int64_t i = 0; i < strip.count; ++i) {
      std::memcpy(dense + i * strip.run_bytes, tensor + strip.first_byte + i * strip.stride_bytes,
                  static_cast<size_t>(strip.run_bytes));
    }
  }
  static void unpack(const Strip& strip, const std::byte* dense, std::byte* tensor) {
    for (int64_t i = 0; i < strip.count; ++i) {
      std::memcpy(tensor + strip.first_byte + i * strip.stride_bytes, dense + i * strip.run_bytes,
                  static_cast<size_t>(strip.run_bytes));
    }
  }

 private:
  Scratch scratch_;
};

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
  Packer packer(args);
  all_gather(op, args, packer);
}

// --- reduce_scatter ------------------------------------------------------------------------------

int64_t workspace_bytes(const ReduceScatter& op, const WorkspaceQuery& query) {
  int64_t largest = 0;  // values are packed one after another into the same memory
  for (const TensorSpec& input : query.inputs) largest = std::max(largest, bytes_of(input));
  return op.dim == 0 ? 0 : scratch_bytes<std::byte>(largest);
}

void run(const ReduceScatter& op, const KernelArgs& args, const CpuThreads&) {
  for (size_t i = 0; i < args.inputs.size(); ++i) {
    Packer packer(args);
    reduce_scatter(op, args.inputs[i], args.outputs[i], communicator_of(args), packer);
  }
}

// --- all_to_all ----------------------------------------------------------------------------------

int64_t workspace_bytes(const AllToAll&, const WorkspaceQuery& query) {
  // Planned shapes are rounded up: the larger one is size() blocks.
  const int64_t blocks = std::max(bytes_of(query.inputs[0]), bytes_of(query.outputs[0]));
  return 2 * scratch_bytes<std::byte>(blocks);
}

void run(const AllToAll& op, const KernelArgs& args, const CpuThreads&) {
  Packer packer(args);
  all_to_all(op, args, packer);
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
  Packer::pack(strip_of(view, part), whole.as<std::byte>(), args.outputs[0].as<std::byte>());
}

}  // namespace caravan::cpu
