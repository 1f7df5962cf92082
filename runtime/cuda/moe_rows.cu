// Rows of the experts' buffer: dispatch copies tokens there, combine and the gradient of dispatch
// gather them again by token, so that every sum has the order of a token's picks.
//
// Memory-bound: a row is read and written once, 16 bytes at a time, by a block of its own (several
// loads of each thread in flight). The gradient of dispatch reads drows twice, for dx and for
// dscores: beside the products of a layer of experts that is below a hundredth.
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/reduce.cuh"
#include "runtime/cuda/vectors.cuh"
#include "runtime/cuda/workspace.h"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 128;

// --- rows of a pass ------------------------------------------------------------------------------

// What is sorted, and the part of it that a pass takes: for the experts of each rank at most
// `quota`, one rank's after another's.
struct Pass {
  const int32_t* order;
  const int32_t* ends;
  const float* number;
  int num_experts;
  int groups;
  int64_t quota;

  struct Window {
    int64_t begin;  // in order
    int64_t end;
  };
  __device__ Window window(int group) const {
    const int experts = num_experts / groups;
    const int64_t begin = group == 0 ? 0 : ends[group * experts - 1];
    const int64_t end = ends[(group + 1) * experts - 1];
    const auto pass = static_cast<int64_t>(*number);
    return {min(end, begin + pass * quota), min(end, begin + (pass + 1) * quota)};
  }
  // The pick (t * k + j) of a row; -1 where the pass has no such row.
  __device__ int32_t pick(int64_t row) const {
    for (int group = 0; group < groups; ++group) {
      const Window w = window(group);
      if (row < w.end - w.begin) return order[w.begin + row];
      row -= w.end - w.begin;
    }
    return -1;
  }
};

// Inputs first, first + 1, first + 2: order, ends, pass.
Pass pass_of(const KernelArgs& args, size_t first, int64_t rows) {
  const int groups = args.communicator == nullptr ? 1 : args.communicator->size();
  return {.order = args.inputs[first].as<int32_t>(),
          .ends = args.inputs[first + 1].as<int32_t>(),
          .number = args.inputs[first + 2].as<float>(),
          .num_experts = static_cast<int>(args.inputs[first + 1].size()),
          .groups = groups,
          .quota = rows / groups};
}

__global__ void count_rows_kernel(Pass pass, int32_t* counts) {
  const int e = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (e >= pass.num_experts) return;
  const Pass::Window w = pass.window(e / (pass.num_experts / pass.groups));
  const int64_t begin = e == 0 ? 0 : pass.ends[e - 1], end = pass.ends[e];
  const int64_t count = min(end, w.end) - max(begin, w.begin);
  counts[e] = static_cast<int32_t>(max(count, int64_t{0}));
}

__global__ void invert_kernel(Pass pass, int64_t num_rows, int32_t* row_of) {
  const int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (row >= num_rows) return;
  const int32_t pick = pass.pick(row);
  if (pick >= 0) row_of[pick] = static_cast<int32_t>(row);
}

// By pick: its row in the pass, -1 where it has none.
const int32_t* rows_by_pick(const Pass& pass, int64_t num_picks, int64_t num_rows,
                            const KernelArgs& args, const Queue& queue) {
  int32_t* const row_of = Workspace(args).take<int32_t>(num_picks);
  check_cuda(cudaMemsetAsync(row_of, 0xff, static_cast<size_t>(num_picks) * 4, queue.stream),
             "rows of picks");
  launch({static_cast<unsigned>(divide_up(num_rows, kThreads)), kThreads}, queue.stream,
         invert_kernel, pass, num_rows, row_of);
  return row_of;
}

// --- elements of rows ----------------------------------------------------------------------------

// What a thread loads at once: 16 bytes, or an element where rows are no multiple of that.
template <typename T, int kSize>
struct alignas(sizeof(T) * kSize) Pack {
  T at[kSize];
};

template <int kSize, typename T>
__device__ inline Pack<T, kSize> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kSize>*>(from);
}
template <int kSize, typename T>
__device__ inline void store_pack(T* to, const Pack<T, kSize>& pack) {
  *reinterpret_cast<Pack<T, kSize>*>(to) = pack;
}

// body(T{}, integral_constant<elements that a thread takes at once>).
template <typename Body>
void with_packs(const TensorView& rows, std::initializer_list<const void*> others,
                const Body& body) {
  with_type(rows.dtype, [&](auto type) {
    using T = decltype(type);
    bool vectors = rows_are_vectors<T>(rows.dim(1)) && is_vector_aligned(rows.data);
    for (const void* other : others) vectors = vectors && is_vector_aligned(other);
    if (vectors) {
      body(type, std::integral_constant<int, Vector<T>::kSize>{});
    } else {
      body(type, std::integral_constant<int, 1>{});
    }
  });
}

// --- dispatch ------------------------------------------------------------------------------------

// `scores` is null where rows are not weighted.
template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads)
    dispatch_kernel(Pass pass, const T* __restrict__ x, const float* scores, int k, int64_t width,
                    T* __restrict__ rows) {
  const int64_t row = blockIdx.x;
  const int32_t pick = pass.pick(row);
  if (pick < 0) return;
  const float scale = scores == nullptr ? 1.0f : scores[pick];
  const T* const from = x + pick / k * width;
  T* const to = rows + row * width;
#pragma unroll 4
  for (int64_t i = threadIdx.x * kSize; i < width; i += kThreads * kSize) {
    Pack<T, kSize> pack = load_pack<kSize>(from + i);
#pragma unroll
    for (int j = 0; j < kSize; ++j) pack.at[j] = from_float<T>(scale * to_float(pack.at[j]));
    store_pack(to + i, pack);
  }
}

// out[t] = addend[t] + sum over its picks of score * row; without scores or addend where null.
template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const int32_t* row_of, const T* rows, const float* scores, const T* addend, int k,
                  int64_t width, T* out) {
  constexpr int kAtOnce = 4;  // rows that a thread waits for together
  const int64_t t = blockIdx.x;
  for (int64_t i = threadIdx.x * kSize; i < width; i += kThreads * kSize) {
    float sums[kSize] = {};
    if (addend != nullptr) {
      const Pack<T, kSize> pack = load_pack<kSize>(addend + t * width + i);
#pragma unroll
      for (int j = 0; j < kSize; ++j) sums[j] = to_float(pack.at[j]);
    }
    for (int64_t a = t * k; a < (t + 1) * k; a += kAtOnce) {
      Pack<T, kSize> packs[kAtOnce] = {};
      float scales[kAtOnce] = {};
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        const int64_t row = a + n < (t + 1) * k ? row_of[a + n] : -1;
        if (row < 0) continue;
        packs[n] = load_pack<kSize>(rows + row * width + i);
        scales[n] = scores == nullptr ? 1.0f : scores[a + n];
      }
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
#pragma unroll
        for (int j = 0; j < kSize; ++j) sums[j] += scales[n] * to_float(packs[n].at[j]);
      }
    }
    Pack<T, kSize> sum;
#pragma unroll
    for (int j = 0; j < kSize; ++j) sum.at[j] = from_float<T>(sums[j]);
    store_pack(out + t * width + i, sum);
  }
}

// dscores: the product of x[t] with the row of each pick. A warp for each pick.
template <typename T, int kSize>
__global__ void __launch_bounds__(kThreads)
    dot_kernel(const int32_t* row_of, const T* x, const T* rows, int k, int64_t width,
               int64_t num_picks, bool adds, float* dscores) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t a = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (a >= num_picks) return;
  const int64_t row = row_of[a];
  float sum = 0;
#pragma unroll 4
  for (int64_t i = lane * kSize; row >= 0 && i < width; i += 32 * kSize) {
    const Pack<T, kSize> left = load_pack<kSize>(x + a / k * width + i);
    const Pack<T, kSize> right = load_pack<kSize>(rows + row * width + i);
#pragma unroll
    for (int j = 0; j < kSize; ++j) sum += to_float(left.at[j]) * to_float(right.at[j]);
  }
  sum = reduce_warp(sum, Sum{});
  if (lane == 0) dscores[a] = adds ? dscores[a] + sum : sum;
}

}  // namespace

void run(const Dispatch& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& x = args.inputs[0];
  const TensorView& rows = args.outputs[0];
  const Pass pass = pass_of(args, 2, rows.dim(0));
  launch({static_cast<unsigned>(divide_up(pass.num_experts, kThreads)), kThreads}, queue.stream,
         count_rows_kernel, pass, args.outputs[1].as<int32_t>());
  const float* const scores = op.weighted ? args.inputs[1].as<float>() : nullptr;
  with_packs(rows, {x.data}, [&](auto type, auto size) {
    using T = decltype(type);
    launch({static_cast<unsigned>(rows.dim(0)), kThreads}, queue.stream, dispatch_kernel<T, size>,
           pass, x.as<T>(), scores, args.inputs[1].dim(1), x.dim(1), rows.as<T>());
  });
}

int64_t workspace_bytes(const Combine&, const WorkspaceQuery& query) {
  return kWorkspaceSlack + taken_bytes<int32_t>(query.inputs[1].shape[0]);
}

void run(const Combine& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& rows = args.inputs[0];
  const TensorView& out = args.outputs[0];
  const void* const addend = op.addend == Addend::none ? nullptr : args.inputs.back().data;
  const int32_t* const row_of =
      rows_by_pick(pass_of(args, 1, rows.dim(0)), args.inputs[1].size(), rows.dim(0), args, queue);
  with_packs(out, {rows.data, addend}, [&](auto type, auto size) {
    using T = decltype(type);
    launch({static_cast<unsigned>(out.dim(0)), kThreads}, queue.stream, gather_kernel<T, size>,
           row_of, rows.as<T>(), nullptr, static_cast<const T*>(addend), op.top_k, out.dim(1),
           out.as<T>());
  });
}

int64_t workspace_bytes(const DispatchGrad&, const WorkspaceQuery& query) {
  return kWorkspaceSlack + taken_bytes<int32_t>(query.inputs[2].shape[0]);
}

void run(const DispatchGrad& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& x = args.inputs[0];
  const TensorView& drows = args.inputs[5];
  const TensorView& dx = args.outputs[0];
  const int64_t k = args.inputs[1].dim(1), num_picks = args.inputs[1].size();
  const float* const scores = args.inputs[1].as<float>();
  const int32_t* const row_of =
      rows_by_pick(pass_of(args, 2, drows.dim(0)), num_picks, drows.dim(0), args, queue);
  with_packs(dx, {x.data, drows.data}, [&](auto type, auto size) {
    using T = decltype(type);
    launch({static_cast<unsigned>(dx.dim(0)), kThreads}, queue.stream, gather_kernel<T, size>,
           row_of, drows.as<T>(), scores, op.adds_in_place ? dx.as<T>() : nullptr, k, dx.dim(1),
           dx.as<T>());
    launch({static_cast<unsigned>(divide_up(num_picks, kThreads / 32)), kThreads}, queue.stream,
           dot_kernel<T, size>, row_of, x.as<T>(), drows.as<T>(), k, dx.dim(1), num_picks,
           op.adds_in_place, args.outputs[1].as<float>());
  });
}

}  // namespace caravan::cuda
