// Bias, one pass, and its gradient: sums of columns. Rows are cut into chunks by their number
// alone; a block sums one chunk of some columns, and a second launch sums what the chunks gave (1 %
// of the bytes).
#include "runtime/cuda/column_sums.h"
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"

namespace caravan::cuda {
namespace {

template <typename T>
struct AddBiasBody : PlainBody {
  const T* x;
  const float* bias;
  T* y;
  int64_t width;

  template <int kSize>
  __device__ Pack<T, kSize> load(int64_t row, int64_t column) const {
    return load_pack<kSize>(x + row * width + column);
  }
  template <int kSize>
  __device__ void store(const Pack<T, kSize>& in, int64_t row, int64_t column) const {
    const Floats<kSize> more = load_floats<kSize>(bias + column);
    Pack<T, kSize> out;
#pragma unroll
    for (int i = 0; i < kSize; ++i) out.at[i] = from_float<T>(to_float(in.at[i]) + more.at[i]);
    store_pack(y + row * width + column, out);
  }
};

constexpr int kColumnLanes = 32;  // packs of a row in a block: whole lines of the cache
constexpr int64_t kLeastRows = 128;
constexpr int64_t kMostChunks = 1024;

// Never less for more rows: what is planned is enough for fewer.
int64_t most_chunks(int64_t rows) { return std::min(kMostChunks, divide_up(rows, kLeastRows)); }
int64_t rows_per_chunk(int64_t rows) { return std::max(kLeastRows, divide_up(rows, kMostChunks)); }

// A block: kColumnLanes packs of columns (x) times kRowLanes rows (y). x (rows, columns) -> sums
// (chunks, columns). Every thread sums its rows, then the block's row lanes are added in order.
template <typename T, int kSize, int kRowLanes>
__global__ void __launch_bounds__(kColumnLanes* kRowLanes)
    column_sums_kernel(const T* x, int64_t rows, int64_t columns, int64_t chunk_rows, float* sums) {
  __shared__ float of_lanes[kRowLanes][kColumnLanes * kSize];
  const int64_t column = (int64_t{blockIdx.x} * kColumnLanes + threadIdx.x) * kSize;
  const int64_t begin = blockIdx.y * chunk_rows;
  const int64_t end = min(rows, begin + chunk_rows);
  float sum[kSize] = {};
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = begin + threadIdx.y; row < end; row += kRowLanes) {
      const Pack<T, kSize> in = load_pack<kSize>(x + row * columns + column);
#pragma unroll
      for (int i = 0; i < kSize; ++i) sum[i] += to_float(in.at[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kSize; ++i) of_lanes[threadIdx.y][threadIdx.x * kSize + i] = sum[i];
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * kColumnLanes + threadIdx.x);
  const int64_t mine = int64_t{blockIdx.x} * kColumnLanes * kSize + thread;
  if (thread >= kColumnLanes * kSize || mine >= columns) return;
  float total = 0;
  for (int lane = 0; lane < kRowLanes; ++lane) total += of_lanes[lane][thread];
  sums[blockIdx.y * columns + mine] = total;
}

template <typename T, int kSize, int kRowLanes>
void launch_column_sums(const T* x, int64_t rows, int64_t columns, int64_t chunk_rows, float* sums,
                        cudaStream_t stream) {
  const dim3 blocks(static_cast<unsigned>(divide_up(columns, kColumnLanes * kSize)),
                    static_cast<unsigned>(std::max<int64_t>(1, divide_up(rows, chunk_rows))));
  launch({blocks, dim3(kColumnLanes, kRowLanes)}, stream, column_sums_kernel<T, kSize, kRowLanes>,
         x, rows, columns, chunk_rows, sums);
}

}  // namespace

// Few rows of few bytes: many row lanes, as loads that wait for each other would take the time.
void sum_partials(const float* partials, int64_t rows, int64_t columns, float* sums,
                  cudaStream_t stream) {
  launch_column_sums<float, 1, 32>(partials, rows, columns, std::max<int64_t>(1, rows), sums,
                                   stream);
}

void run(const AddBias&, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t width = args.inputs[1].size();
    const AddBiasBody<T> body{
        {}, args.inputs[0].as<T>(), args.inputs[1].as<float>(), args.outputs[0].as<T>(), width};
    launch_rows<kFullPack<T>>(body, args.outputs[0].dim(0), width,
                              are_vector_aligned(body.x, body.bias, body.y), queue.stream);
  });
}

int64_t workspace_bytes(const SumRows&, const WorkspaceQuery& query) {
  const Shape& x = query.inputs[0].shape;
  const int64_t chunks = most_chunks(x[0]);
  return chunks <= 1 ? 0 : chunks * x[1] * static_cast<int64_t>(sizeof(float));
}

void run(const SumRows&, const KernelArgs& args, const Queue& queue) {
  const int64_t rows = args.inputs[0].dim(0), columns = args.inputs[0].dim(1);
  const int64_t chunk_rows = rows_per_chunk(rows), chunks = divide_up(rows, chunk_rows);
  float* const out = args.outputs[0].as<float>();
  float* const sums = chunks <= 1 ? out : static_cast<float*>(args.workspace);
  with_type(args.inputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    const T* x = args.inputs[0].as<T>();
    if (columns % kFullPack<T> == 0 && is_vector_aligned(x)) {
      launch_column_sums<T, kFullPack<T>, 8>(x, rows, columns, chunk_rows, sums, queue.stream);
    } else {
      launch_column_sums<T, 1, 8>(x, rows, columns, chunk_rows, sums, queue.stream);
    }
  });
  if (chunks > 1) sum_partials(sums, chunks, columns, out, queue.stream);
}

}  // namespace caravan::cuda
