// Collectives on dense tensors: packing where a dim other than the first is split, then one call
// of the communicator.
//
// Dim 0 may not divide by the axis: then every rank's block is ceil(rows / size) rows, and storage
// that the blocks cover is padded to size blocks (Value::padding_elements; a shard's own storage
// is a whole block), so blocks travel whole and what is beyond a view is never read.
#include <cstring>
#include <numeric>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"
#include "runtime/error.h"

namespace caravan::cpu {
namespace {

// A dense tensor seen along one dim: (outer, length, inner) with inner in bytes.
struct Along {
  int64_t outer = 1;
  int64_t length = 1;
  int64_t inner_bytes = 1;
};

Along along(const TensorView& tensor, int dim) {
  Along view{.inner_bytes = size_bytes(tensor.dtype)};
  for (int i = 0; i < static_cast<int>(tensor.shape.size()); ++i) {
    (i < dim ? view.outer : i > dim ? view.inner_bytes : view.length) *= tensor.dim(i);
  }
  return view;
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The part of rank `rank` along the dim, of `size` parts.
struct Part {
  int64_t begin;
  int64_t end;
};

Part part_of(int64_t length, int size, int rank) {
  const int64_t step = divide_up(length, size);
  return {std::min(length, step * rank), std::min(length, step * (rank + 1))};
}

// Copies a part of the tensor to dense memory (outer, part, inner).
void pack_part(const Along& view, Part part, const std::byte* tensor, std::byte* dense) {
  const int64_t run_bytes = (part.end - part.begin) * view.inner_bytes;
  for (int64_t i = 0; i < view.outer; ++i) {
    std::memcpy(dense + i * run_bytes, tensor + (i * view.length + part.begin) * view.inner_bytes,
                static_cast<size_t>(run_bytes));
  }
}

void unpack_part(const Along& view, Part part, const std::byte* dense, std::byte* tensor) {
  const int64_t run_bytes = (part.end - part.begin) * view.inner_bytes;
  for (int64_t i = 0; i < view.outer; ++i) {
    std::memcpy(tensor + (i * view.length + part.begin) * view.inner_bytes, dense + i * run_bytes,
                static_cast<size_t>(run_bytes));
  }
}

int64_t bytes_of(const TensorSpec& spec) {
  return num_elements(spec.shape) * size_bytes(spec.dtype);
}
int64_t bytes_of(const TensorView& view) { return view.size() * size_bytes(view.dtype); }

Communicator& communicator_of(const KernelArgs& args) {
  check(args.communicator != nullptr, "[collective] there is no communicator for the axis");
  return *args.communicator;
}

// Only dim 0 may be split unevenly: along the others the packed blocks would not be dense.
void check_divides(int64_t length, int size) {
  check(length % size == 0, "[collective] a dim of %d does not divide by %d ranks", length, size);
}

}  // namespace

// --- all_reduce ----------------------------------------------------------------------------------

// Values that follow one another, but for the gap of alignment, travel as one: the gap's bytes are
// nobody's, and what they hold is summed unseen.
void run(const AllReduce&, const KernelArgs& args, const CpuThreads&) {
  constexpr int64_t kLargestGap = 64;
  Communicator& communicator = communicator_of(args);
  const std::span<const TensorView> values = args.outputs;  // the inputs, in place
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
    communicator.all_reduce(begin, (end - begin) / size_bytes(dtype), dtype);
    first = next;
  }
}

// --- all_gather ----------------------------------------------------------------------------------

int64_t workspace_bytes(const AllGather& op, const WorkspaceQuery& query) {
  return op.dim == 0 ? 0 : scratch_bytes<std::byte>(bytes_of(query.outputs[0]));
}

void run(const AllGather& op, const KernelArgs& args, const CpuThreads&) {
  Communicator& communicator = communicator_of(args);
  const TensorView& whole = args.outputs[0];
  const Along view = along(whole, op.dim);
  const int64_t block = divide_up(view.length, communicator.size());
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
  const int64_t block = divide_up(view.length, communicator.size());
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

namespace {

// Bytes that a rank sends to each other one: its part along `from_dim`, cut along `to_dim`.
int64_t exchanged_bytes(const AllToAll& op, const TensorView& input, const TensorView& output,
                        int size) {
  int64_t bytes = size_bytes(input.dtype);
  for (int i = 0; i < static_cast<int>(input.shape.size()); ++i) {
    const bool split = i == op.from_dim || i == op.to_dim;
    const int64_t whole = i == op.from_dim ? output.dim(i) : input.dim(i);
    bytes *= split ? divide_up(whole, size) : whole;
  }
  return bytes;
}

}  // namespace

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

// Bytes of each rank's rows; counts (ranks * E): how many there are for each expert of each rank.
std::span<const int64_t> row_bytes(const TensorView& rows, const TensorView& counts, int num_ranks,
                                   Scratch& scratch) {
  int64_t* bytes = scratch.take<int64_t>(num_ranks);
  const int64_t bytes_per_row = rows.dim(1) * size_bytes(rows.dtype);
  const int64_t experts = counts.size() / num_ranks;
  for (int64_t rank = 0; rank < num_ranks; ++rank) {
    const auto* of_rank = counts.as<int32_t>() + rank * experts;
    bytes[rank] = std::accumulate(of_rank, of_rank + experts, int64_t{0}) * bytes_per_row;
  }
  return {bytes, static_cast<size_t>(num_ranks)};
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
