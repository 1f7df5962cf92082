// Elementwise ops, each one pass: SwiGlu moves 3 tensors, its gradient 5, Add 3.
#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"

namespace caravan::cuda {
namespace {

// 1 / (1 + e^-x). What becomes bf16 needs no exact one: in bf16 there are twice the elements per
// byte, and the exact one's instructions would take longer than the bytes.
template <typename T>
__device__ float sigmoid(float x) {
  if constexpr (sizeof(T) == 2) {
    return __fdividef(1.0f, 1.0f + __expf(-x));
  } else {
    return 1.0f / (1.0f + expf(-x));
  }
}

template <typename T, int kSize>
struct Two {
  Pack<T, kSize> a, b;
};

template <typename T>
struct SwiGluBody : PlainBody {
  const T* gate;
  const T* up;
  T* y;

  template <int kSize>
  __device__ Two<T, kSize> load(int64_t at) const {
    return {load_pack<kSize>(gate + at), load_pack<kSize>(up + at)};
  }
  template <int kSize>
  __device__ void store(const Two<T, kSize>& in, int64_t at) const {
    Pack<T, kSize> out;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const float g = to_float(in.a.at[i]);
      out.at[i] = from_float<T>(g * sigmoid<T>(g) * to_float(in.b.at[i]));
    }
    store_pack(y + at, out);
  }
};

template <typename T, int kSize>
struct Three {
  Pack<T, kSize> gate, up, dy;
};

// d silu(g) / dg = s (1 + g (1 - s)) with s = sigmoid(g).
template <typename T>
struct SwiGluGradBody : PlainBody {
  static constexpr int kPacks = 1;
  const T* gate;
  const T* up;
  const T* dy;
  T* dgate;
  T* dup;

  template <int kSize>
  __device__ Three<T, kSize> load(int64_t at) const {
    return {load_pack<kSize>(gate + at), load_pack<kSize>(up + at), load_pack<kSize>(dy + at)};
  }
  template <int kSize>
  __device__ void store(const Three<T, kSize>& in, int64_t at) const {
    Pack<T, kSize> to_gate, to_up;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const float g = to_float(in.gate.at[i]), d = to_float(in.dy.at[i]);
      const float s = sigmoid<T>(g);
      to_gate.at[i] = from_float<T>(d * to_float(in.up.at[i]) * s * (1.0f + g * (1.0f - s)));
      to_up.at[i] = from_float<T>(d * g * s);
    }
    store_pack(dgate + at, to_gate);
    store_pack(dup + at, to_up);
  }
};

template <typename T>
struct AddBody : PlainBody {
  const T* a;
  const T* b;
  T* sum;

  template <int kSize>
  __device__ Two<T, kSize> load(int64_t at) const {
    return {load_pack<kSize>(a + at), load_pack<kSize>(b + at)};
  }
  template <int kSize>
  __device__ void store(const Two<T, kSize>& in, int64_t at) const {
    Pack<T, kSize> out;
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      out.at[i] = from_float<T>(to_float(in.a.at[i]) + to_float(in.b.at[i]));
    }
    store_pack(sum + at, out);
  }
};

}  // namespace

void run(const SwiGlu&, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    const SwiGluBody<T> body{
        {}, args.inputs[0].as<T>(), args.inputs[1].as<T>(), args.outputs[0].as<T>()};
    launch_flat<kFullPack<T>>(body, args.outputs[0].size(),
                              are_vector_aligned(body.gate, body.up, body.y), queue.stream);
  });
}

void run(const SwiGluGrad&, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    const SwiGluGradBody<T> body{{},
                                 args.inputs[0].as<T>(),
                                 args.inputs[1].as<T>(),
                                 args.inputs[2].as<T>(),
                                 args.outputs[0].as<T>(),
                                 args.outputs[1].as<T>()};
    launch_flat<kFullPack<T>>(body, args.outputs[0].size(),
                              are_vector_aligned(body.gate, body.up, body.dy, body.dgate, body.dup),
                              queue.stream);
  });
}

void run(const Add&, const KernelArgs& args, const Queue& queue) {
  with_type(args.outputs[0].dtype, [&](auto type) {
    using T = decltype(type);
    const AddBody<T> body{
        {}, args.inputs[0].as<T>(), args.inputs[1].as<T>(), args.outputs[0].as<T>()};
    launch_flat<kFullPack<T>>(body, args.outputs[0].size(),
                              are_vector_aligned(body.a, body.b, body.sum), queue.stream);
  });
}

}  // namespace caravan::cuda
