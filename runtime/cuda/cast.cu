// Casts between f32 and bf16: one pass, 6 bytes an element.
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"

namespace caravan::cuda {
namespace {

template <typename From, typename To>
struct CastBody : PlainBody {
  static constexpr int kPacks = 4;
  const From* from;
  To* to;

  template <int kSize>
  __device__ Pack<From, kSize> load(int64_t at) const {
    return load_pack<kSize>(from + at);
  }
  template <int kSize>
  __device__ void store(const Pack<From, kSize>& in, int64_t at) const {
    Pack<To, kSize> out;
#pragma unroll
    for (int i = 0; i < kSize; ++i) out.at[i] = from_float<To>(to_float(in.at[i]));
    store_pack(to + at, out);
  }
};

}  // namespace

// Packs of 4 elements: neighbouring threads then touch neighbouring bytes on both sides.
void run(const Cast&, const KernelArgs& args, const Queue& queue) {
  const TensorView& from = args.inputs[0];
  const TensorView& to = args.outputs[0];
  if (from.dtype == to.dtype) {
    const auto bytes = static_cast<size_t>(to.size() * size_bytes(to.dtype));
    check_cuda(cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice, queue.stream),
               "cast to the same type");
    return;
  }
  const bool is_aligned = are_vector_aligned(from.data, to.data);
  if (to.dtype == DType::f32) {
    const CastBody<bf16, float> body{{}, from.as<bf16>(), to.as<float>()};
    launch_flat<4>(body, to.size(), is_aligned, queue.stream);
  } else {
    const CastBody<float, bf16> body{{}, from.as<float>(), to.as<bf16>()};
    launch_flat<4>(body, to.size(), is_aligned, queue.stream);
  }
}

}  // namespace caravan::cuda
