// Rows of a table by id, one pass; and the gradient of the table. Where the rows of the table are
// dealt out, a rank has those from begin(0) on.
//
// The gradient begins with zeros or the addend (a plain fill or copy of the table, which is nearly
// all of its bytes), sorts the tokens by id, and has one block add the rows of an id, in the order
// of tokens, for each id that occurs and each piece of the columns.
#include <cmath>

#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/sort.h"

namespace caravan::cuda {
namespace {

constexpr int kPack = 4;  // elements of f32 in 16 bytes

// --- forward -------------------------------------------------------------------------------------

template <typename T>
struct EmbeddingBody : PlainBody {
  const float* table;
  const int32_t* ids;
  T* y;
  int64_t width;
  int64_t first;  // of the rows that are here
  int64_t count;
  int64_t whole;  // rows of all ranks

  // Zeros for what another rank has. An id that no table has gives NaN: the step is then skipped.
  template <int kSize>
  __device__ Pack<float, kSize> load(int64_t token, int64_t column) const {
    const int64_t id = ids[token], row = id - first;
    if (row >= 0 && row < count) return load_pack<kSize>(table + row * width + column);
    Pack<float, kSize> none;
#pragma unroll
    for (int i = 0; i < kSize; ++i) none.at[i] = id >= 0 && id < whole ? 0.0f : NAN;
    return none;
  }
  template <int kSize>
  __device__ void store(const Pack<float, kSize>& in, int64_t token, int64_t column) const {
    Pack<T, kSize> out;
#pragma unroll
    for (int i = 0; i < kSize; ++i) out.at[i] = from_float<T>(in.at[i]);
    store_pack(y + token * width + column, out);
  }
};

// --- gradient ------------------------------------------------------------------------------------

constexpr int kThreads = 256;
constexpr int kAhead = 8;  // rows that are on their way at once

template <typename T>
struct RowSums {
  SortedTokens sorted;
  int64_t num_tokens;
  int64_t num_rows;
  int64_t width;
  const T* dy;
  float* table;
};

// Block x works if the x-th of the sorted tokens is the first of its id. Adds to the table.
template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads) row_sums_kernel(RowSums<T> r) {
  const int64_t head = blockIdx.x;
  const int32_t row = r.sorted.keys[head];
  if (row == r.num_rows || (head > 0 && r.sorted.keys[head - 1] == row)) return;
  const int64_t column = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kSize;
  if (column >= r.width) return;
  float* const to = r.table + row * r.width + column;
  Pack<float, kSize> sum = load_pack<kSize>(to);
  bool goes_on = true;
  for (int64_t i = head; goes_on; i += kAhead) {
    Pack<T, kSize> rows[kAhead] = {};
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      goes_on = goes_on && i + a < r.num_tokens && r.sorted.keys[i + a] == row;
      if (goes_on) rows[a] = load_pack<kSize>(r.dy + r.sorted.tokens[i + a] * r.width + column);
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {  // what was not loaded is 0
#pragma unroll
      for (int e = 0; e < kSize; ++e) sum.at[e] += to_float(rows[a].at[e]);
    }
  }
  store_pack(to, sum);
}

template <typename T, int kSize>
void launch_row_sums(const RowSums<T>& sums, cudaStream_t stream) {
  const int64_t packs = divide_up(sums.width, kSize);
  const auto threads =
      static_cast<unsigned>(std::min<int64_t>(kThreads, divide_up(packs, 32) * 32));
  const dim3 blocks(static_cast<unsigned>(sums.num_tokens),
                    static_cast<unsigned>(divide_up(packs, threads)));
  launch({blocks, threads}, stream, row_sums_kernel<T, kSize>, sums);
}

template <typename T>
void add_rows(const RowSums<T>& sums, cudaStream_t stream) {
  if (sums.width % kPack == 0 && are_vector_aligned(sums.dy, sums.table)) {
    launch_row_sums<T, kPack>(sums, stream);
  } else {
    launch_row_sums<T, 1>(sums, stream);
  }
}

// What the rows of tokens are added to.
void begin_table(const EmbeddingGrad& op, const KernelArgs& args, cudaStream_t stream) {
  const TensorView& table = args.outputs[0];
  const auto bytes = static_cast<size_t>(table.size()) * sizeof(float);
  if (op.addend == Addend::none) {
    check_cuda(cudaMemsetAsync(table.data, 0, bytes, stream), "zeroing a gradient");
  } else if (args.inputs.back().data != table.data) {
    check_cuda(cudaMemcpyAsync(table.data, args.inputs.back().data, bytes, cudaMemcpyDeviceToDevice,
                               stream),
               "copying a gradient");
  }
}

}  // namespace

void run(const Embedding&, const KernelArgs& args, const Queue& queue) {
  const TensorView& table = args.inputs[0];
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    const EmbeddingBody<T> body{{},
                                table.as<float>(),
                                args.inputs[1].as<int32_t>(),
                                args.outputs[0].as<T>(),
                                table.dim(1),
                                table.begin(0),
                                table.dim(0),
                                table.whole_dim(0)};
    launch_rows<kPack>(body, args.inputs[1].size(), body.width,
                       are_vector_aligned(body.table, body.y), queue.stream);
  });
}

int64_t workspace_bytes(const EmbeddingGrad&, const WorkspaceQuery& query) {
  return SortSpace::bytes(query.inputs[1].shape[0]);
}

// Ids that no table has are passed over, like those of other ranks: their tokens' loss is NaN.
void run(const EmbeddingGrad& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& ids = args.inputs[1];
  const TensorView& table = args.outputs[0];
  begin_table(op, args, queue.stream);
  const SortSpace space(args.workspace, ids.size());
  const SortedTokens sorted =
      sort_tokens(ids.as<int32_t>(), ids.size(), table.begin(0), table.dim(0), space, queue.stream);
  with_type(args.inputs[2].dtype, [&](auto type) {
    using T = decltype(type);
    add_rows<T>(
        {sorted, ids.size(), table.dim(0), table.dim(1), args.inputs[2].as<T>(), table.as<float>()},
        queue.stream);
  });
}

}  // namespace caravan::cuda
