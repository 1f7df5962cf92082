// From summed gradients to new weights: accumulation, the norm for clipping, AdamW. All of them
// wait for memory, so each is one pass over its tensors.
#include <algorithm>
#include <cmath>

#include "runtime/cpu/kernels.h"
#include "runtime/cpu/scratch.h"

namespace caravan::cpu {
namespace {

constexpr int64_t kChunk = 16384;  // elements of a task

int64_t num_chunks(int64_t size) { return (size + kChunk - 1) / kChunk; }

// In double: squares of tiny gradients would vanish beside large ones.
double sum_of_squares(const float* values, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double value = values[i];
    sum += value * value;
  }
  return sum;
}

}  // namespace

void run(const Accumulate&, const KernelArgs& args, const CpuThreads& threads) {
  float* sum = args.outputs[0].as<float>();  // also the first input
  const float* value = args.inputs[1].as<float>();
  const float keep = *args.inputs[2].as<float>();
  threads.for_chunks(args.outputs[0].size(), kChunk, [=](int64_t begin, int64_t end) {
    if (keep == 0.0f) {  // not a product with 0: what lies in `sum` may be NaN
      std::copy(value + begin, value + end, sum + begin);
      return;
    }
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) sum[i] = keep * sum[i] + value[i];
  });
}

int64_t workspace_bytes(const SquaredNorm&, const WorkspaceQuery& query) {
  int64_t chunks = 0;
  for (const TensorSpec& input : query.inputs) chunks += num_chunks(num_elements(input.shape));
  return scratch_bytes<double>(chunks);
}

void run(const SquaredNorm&, const KernelArgs& args, const CpuThreads& threads) {
  int64_t total_chunks = 0;
  for (const TensorView& input : args.inputs) total_chunks += num_chunks(input.size());
  double* const partials = Scratch(args).take<double>(total_chunks);
  double* next = partials;
  for (const TensorView& input : args.inputs) {
    const float* values = input.as<float>();
    threads.for_chunks(input.size(), kChunk, [=](int64_t begin, int64_t end) {
      next[begin / kChunk] = sum_of_squares(values + begin, end - begin);
    });
    next += num_chunks(input.size());
  }
  double sum = 0;
  for (const double* partial = partials; partial != next; ++partial) sum += *partial;
  *args.outputs[0].as<float>() = static_cast<float>(sum);
}

// The inputs are the squared norm of gradients summed over tokens, and the number of tokens; the
// norm that is clipped is that of their mean.
void run(const ClipScale& op, const KernelArgs& args, const CpuThreads&) {
  const double num_valid = *args.inputs[1].as<float>();
  double scale = 0;
  double norm = 0;
  if (num_valid != 0) {  // no token to learn from: the update is zero
    norm = std::sqrt(static_cast<double>(*args.inputs[0].as<float>())) / num_valid;
    const bool clips = op.max_norm > 0 && norm > op.max_norm;
    scale = (clips ? op.max_norm / norm : 1.0) / num_valid;
  }
  const bool is_sick = !std::isfinite(norm) || !std::isfinite(*args.inputs[2].as<float>());
  *args.outputs[0].as<float>() = is_sick ? NAN : static_cast<float>(scale);
  *args.outputs[1].as<float>() = static_cast<float>(norm);
}

// The bias corrections are made once, in double: 1 - beta^step cancels in the first steps.
void run(const AdamW& op, const KernelArgs& args, const CpuThreads& threads) {
  float* param = args.outputs[0].as<float>();  // param, m and v are also inputs 0, 2 and 3
  float* m = args.outputs[1].as<float>();
  float* v = args.outputs[2].as<float>();
  const float* grad = args.inputs[1].as<float>();
  const float scale = *args.inputs[4].as<float>();
  if (!std::isfinite(scale)) return;
  const double rate = *args.inputs[5].as<float>();
  const double step = *args.inputs[6].as<float>();
  const float m_factor = static_cast<float>(rate / (1.0 - std::pow(double{op.beta1}, step)));
  const float v_factor = static_cast<float>(1.0 / (1.0 - std::pow(double{op.beta2}, step)));
  const float decay = static_cast<float>(1.0 - rate * op.weight_decay);
  threads.for_chunks(args.outputs[0].size(), kChunk, [=, &op](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const float g = grad[i] * scale;
      m[i] = op.beta1 * m[i] + (1.0f - op.beta1) * g;
      v[i] = op.beta2 * v[i] + (1.0f - op.beta2) * g * g;
      param[i] = param[i] * decay - m_factor * m[i] / (std::sqrt(v[i] * v_factor) + op.eps);
    }
  });
}

void run(const UpdateRouterBias& op, const KernelArgs& args, const CpuThreads&) {
  float* bias = args.outputs[0].as<float>();  // input 0, in place
  const float* load = args.inputs[1].as<float>();
  if (!std::isfinite(*args.inputs[2].as<float>())) return;
  const int64_t num_experts = args.inputs[1].size();
  double sum = 0;
  for (int64_t e = 0; e < num_experts; ++e) sum += load[e];
  const double mean = sum / static_cast<double>(num_experts);
  if (mean == 0) return;
  for (int64_t e = 0; e < num_experts; ++e) {
    bias[e] += op.rate * static_cast<float>(std::clamp(1 - load[e] / mean, -1.0, 1.0));
  }
}

}  // namespace caravan::cpu
