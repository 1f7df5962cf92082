// From summed gradients to new weights. Each is one pass: Accumulate moves 12 bytes an element (8
// when it forgets), the norm 4, AdamW 28.
#include <cmath>

#include "runtime/cuda/elementwise.cuh"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/reduce.cuh"

namespace caravan::cuda {
namespace {

// --- accumulate ----------------------------------------------------------------------------------

struct AccumulateBody {
  static constexpr int kPacks = 2;
  float* sum;
  const float* value;
  const float* keep_at;
  float keep;  // read once by each thread

  template <int kSize>
  struct Loaded {
    Pack<float, kSize> sum, value;
  };
  __device__ bool prepare() {
    keep = *keep_at;
    return true;
  }
  template <int kSize>
  __device__ Loaded<kSize> load(int64_t at) const {
    Loaded<kSize> in = {};
    in.value = load_pack<kSize>(value + at);
    if (keep != 0.0f) in.sum = load_pack<kSize>(sum + at);
    return in;
  }
  template <int kSize>
  __device__ void store(const Loaded<kSize>& in, int64_t at) const {
    Pack<float, kSize> out = in.value;
    if (keep != 0.0f) {  // not a product with 0: what lies in `sum` may be NaN
#pragma unroll
      for (int i = 0; i < kSize; ++i) out.at[i] = keep * in.sum.at[i] + in.value.at[i];
    }
    store_pack(sum + at, out);
  }
};

// --- squared norm --------------------------------------------------------------------------------

constexpr int kNormThreads = 256;
constexpr int64_t kChunk = 32768;  // elements of a block
constexpr int kValuesOfLaunch = 128;
constexpr int kAhead = 4;  // loads of a thread that are on their way at once
constexpr int kLastThreads = 1024;

int64_t num_chunks(int64_t size) { return divide_up(size, kChunk); }

// In double: squares of tiny gradients would vanish beside large ones. It costs nothing beside the
// bytes where double has half the speed of float.
__device__ double reduce_block(double value) {
  __shared__ double of_warps[32];
  const int thread = static_cast<int>(threadIdx.x);
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
  if (thread % 32 == 0) of_warps[thread / 32] = value;
  __syncthreads();
  value = thread % 32 < static_cast<int>(blockDim.x) / 32 ? of_warps[thread % 32] : 0.0;
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
  return value;
}

template <int kSize>
__device__ double sum_of_squares(const float* values, int64_t count) {
  constexpr int kStep = kNormThreads * kSize;
  const auto square = [](float x) { return static_cast<double>(x) * x; };
  double sum = 0;
  int64_t at = threadIdx.x * kSize;
  for (; at + (kAhead - 1) * kStep + kSize <= count; at += kAhead * kStep) {
    Pack<float, kSize> packs[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) packs[a] = load_pack<kSize>(values + at + a * kStep);
#pragma unroll
    for (int i = 0; i < kAhead * kSize; ++i) sum += square(packs[i / kSize].at[i % kSize]);
  }
  for (; at < count; at += kStep) {
    for (int64_t i = at; i < min(count, at + kSize); ++i) sum += square(values[i]);
  }
  return sum;
}

// Values of one launch and the number of the first chunk of each, and of none after the last.
struct Values {
  const float* data[kValuesOfLaunch];
  int64_t sizes[kValuesOfLaunch];
  int64_t first_chunk[kValuesOfLaunch + 1];
  int count = 0;
};

__global__ void __launch_bounds__(kNormThreads) squares_kernel(Values values, double* partials) {
  const int64_t chunk = blockIdx.x;
  int low = 0, high = values.count;  // the value lies in [low, high)
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (values.first_chunk[middle] <= chunk ? low : high) = middle;
  }
  const int64_t begin = (chunk - values.first_chunk[low]) * kChunk;
  const float* const data = values.data[low] + begin;
  const int64_t count = min(kChunk, values.sizes[low] - begin);
  const bool is_aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0;
  const double sum = is_aligned ? sum_of_squares<4>(data, count) : sum_of_squares<1>(data, count);
  const double total = reduce_block(sum);
  if (threadIdx.x == 0) partials[chunk] = total;
}

__global__ void __launch_bounds__(kLastThreads)
    sum_kernel(const double* partials, int64_t count, float* out) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += kLastThreads) sum += partials[i];
  sum = reduce_block(sum);
  if (threadIdx.x == 0) *out = static_cast<float>(sum);
}

// Launches what has been gathered; returns where its partial sums end.
double* launch_squares(Values& values, double* partials, cudaStream_t stream) {
  const int64_t chunks = values.first_chunk[values.count];
  launch({static_cast<unsigned>(chunks), kNormThreads}, stream, squares_kernel, values, partials);
  values.count = 0;
  return partials + chunks;
}

// --- clipping ------------------------------------------------------------------------------------

__global__ void clip_scale_kernel(const float* squared_norm, const float* num_valid,
                                  const float* loss_sum, float max_norm, float* scale_out,
                                  float* norm_out) {
  const double valid = *num_valid;
  double scale = 0, norm = 0;
  if (valid != 0) {  // no token to learn from: the update is zero
    norm = sqrt(static_cast<double>(*squared_norm)) / valid;
    const bool clips = max_norm > 0 && norm > max_norm;
    scale = (clips ? max_norm / norm : 1.0) / valid;
  }
  const bool is_sick = !std::isfinite(norm) || !std::isfinite(*loss_sum);
  *scale_out = is_sick ? NAN : static_cast<float>(scale);
  *norm_out = static_cast<float>(norm);
}

// --- AdamW ---------------------------------------------------------------------------------------

struct AdamWBody {
  static constexpr int kPacks = 1;
  float* param;
  const float* grad;
  float* m;
  float* v;
  const float* scale_at;
  const float* rate_at;
  const float* step_at;
  float beta1, beta2, eps, weight_decay;
  float log_beta1, log_beta2;
  float scale = 0, m_factor = 0, v_factor = 0, decay = 0;  // made by each thread

  template <int kSize>
  struct Loaded {
    Pack<float, kSize> param, grad, m, v;
  };
  // 1 - beta^step = -expm1(step log beta), which does not cancel in the first steps.
  __device__ bool prepare() {
    scale = *scale_at;
    if (!std::isfinite(scale)) return false;
    const float rate = *rate_at, step = *step_at;
    m_factor = rate / -expm1f(step * log_beta1);
    v_factor = 1.0f / -expm1f(step * log_beta2);
    decay = static_cast<float>(1.0 - static_cast<double>(rate) * weight_decay);
    return true;
  }
  template <int kSize>
  __device__ Loaded<kSize> load(int64_t at) const {
    return {load_pack<kSize>(param + at), load_pack<kSize>(grad + at), load_pack<kSize>(m + at),
            load_pack<kSize>(v + at)};
  }
  template <int kSize>
  __device__ void store(Loaded<kSize> in, int64_t at) const {
#pragma unroll
    for (int i = 0; i < kSize; ++i) {
      const float g = in.grad.at[i] * scale;
      const float new_m = beta1 * in.m.at[i] + (1.0f - beta1) * g;
      const float new_v = beta2 * in.v.at[i] + (1.0f - beta2) * g * g;
      in.m.at[i] = new_m;
      in.v.at[i] = new_v;
      in.param.at[i] = in.param.at[i] * decay - m_factor * new_m / (sqrtf(new_v * v_factor) + eps);
    }
    store_pack(param + at, in.param);
    store_pack(m + at, in.m);
    store_pack(v + at, in.v);
  }
};

float log_of(float beta) { return static_cast<float>(std::log(static_cast<double>(beta))); }

// --- router bias ---------------------------------------------------------------------------------

__global__ void __launch_bounds__(kNormThreads)
    router_bias_kernel(float* bias, const float* load, const float* scale, int64_t num_experts,
                       float rate) {
  __shared__ double total;
  double sum = 0;
  for (int64_t e = threadIdx.x; e < num_experts; e += kNormThreads) sum += load[e];
  sum = reduce_block(sum);
  if (threadIdx.x == 0) total = sum;
  __syncthreads();
  const double mean = total / static_cast<double>(num_experts);
  if (!std::isfinite(*scale) || mean == 0) return;
  for (int64_t e = threadIdx.x; e < num_experts; e += kNormThreads) {
    const double distance = 1.0 - load[e] / mean;
    bias[e] += rate * static_cast<float>(fmin(fmax(distance, -1.0), 1.0));
  }
}

}  // namespace

void run(const Accumulate&, const KernelArgs& args, const Queue& queue) {
  const AccumulateBody body{args.outputs[0].as<float>(),  // also the first input
                            args.inputs[1].as<float>(), args.inputs[2].as<float>(), 0};
  launch_flat<4>(body, args.outputs[0].size(), are_vector_aligned(body.sum, body.value),
                 queue.stream);
}

int64_t workspace_bytes(const SquaredNorm&, const WorkspaceQuery& query) {
  int64_t chunks = 0;
  for (const TensorSpec& input : query.inputs) chunks += num_chunks(num_elements(input.shape));
  return chunks * static_cast<int64_t>(sizeof(double));
}

void run(const SquaredNorm&, const KernelArgs& args, const Queue& queue) {
  auto* const partials = static_cast<double*>(args.workspace);
  double* next = partials;
  Values values;
  values.first_chunk[0] = 0;
  for (const TensorView& input : args.inputs) {
    if (input.size() == 0) continue;
    const int i = values.count++;
    values.data[i] = input.as<float>();
    values.sizes[i] = input.size();
    values.first_chunk[i + 1] = values.first_chunk[i] + num_chunks(input.size());
    if (values.count == kValuesOfLaunch) next = launch_squares(values, next, queue.stream);
  }
  if (values.count > 0) next = launch_squares(values, next, queue.stream);
  launch({1, kLastThreads}, queue.stream, sum_kernel, partials, int64_t{next - partials},
         args.outputs[0].as<float>());
}

void run(const ClipScale& op, const KernelArgs& args, const Queue& queue) {
  launch({1, 1}, queue.stream, clip_scale_kernel, args.inputs[0].as<float>(),
         args.inputs[1].as<float>(), args.inputs[2].as<float>(), op.max_norm,
         args.outputs[0].as<float>(), args.outputs[1].as<float>());
}

void run(const AdamW& op, const KernelArgs& args, const Queue& queue) {
  const AdamWBody body{.param = args.outputs[0].as<float>(),  // param, m, v: also inputs 0, 2, 3
                       .grad = args.inputs[1].as<float>(),
                       .m = args.outputs[1].as<float>(),
                       .v = args.outputs[2].as<float>(),
                       .scale_at = args.inputs[4].as<float>(),
                       .rate_at = args.inputs[5].as<float>(),
                       .step_at = args.inputs[6].as<float>(),
                       .beta1 = op.beta1,
                       .beta2 = op.beta2,
                       .eps = op.eps,
                       .weight_decay = op.weight_decay,
                       .log_beta1 = log_of(op.beta1),
                       .log_beta2 = log_of(op.beta2)};
  launch_flat<4>(body, args.outputs[0].size(),
                 are_vector_aligned(body.param, body.grad, body.m, body.v), queue.stream);
}

void run(const UpdateRouterBias& op, const KernelArgs& args, const Queue& queue) {
  launch({1, kNormThreads}, queue.stream, router_bias_kernel, args.outputs[0].as<float>(),
         args.inputs[1].as<float>(), args.inputs[2].as<float>(), args.inputs[1].size(), op.rate);
}

}  // namespace caravan::cuda
