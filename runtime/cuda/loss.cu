// Projection to the vocabulary and cross-entropy, a chunk of tokens at a time: the logits of one
// chunk are all that is ever held, f32 whatever the weight's type, and their gradient replaces
// them.
//
// A row of logits is one block's: one pass for its log-sum-exp, one to turn it into the gradient.
// With f32 logits that is 14 bytes of traffic per logit (bf16: 10 for the passes, 4 to write them
// first) beside 6 D flops of products: about a tenth of the op's time at D = 2048, less above. The
// gradient of the weight is read and written once per chunk, so chunks are as large as memory lets.
#include "runtime/cuda/cublas_lt.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/reduce.cuh"
#include "runtime/cuda/vectors.cuh"
#include "runtime/cuda/workspace.h"

namespace caravan::cuda {
namespace {

constexpr int64_t kLogitsBytes = 1 << 30;  // of a chunk: 2048 tokens for 128k rows
constexpr int64_t kMinTokens = 128;        // whole tiles of the products
constexpr int64_t kMaxTokens = 2048;
constexpr int kMaxThreads = 512;
constexpr int kStep = 8;  // logits that a thread takes at a time: two loads of 16 bytes

// --- softmax of rows -----------------------------------------------------------------------------

// Rows of logits, aligned to 128 bytes, of the vocabulary's rows [first, first + size).
struct Logits {
  float* at;
  int64_t stride;
  int size;
  int first;
  int whole;               // the vocabulary
  const int32_t* targets;  // of the rows
};

// -inf beyond the end.
__device__ inline void load_step(const float* row, int begin, int size, float (&logits)[kStep]) {
  const Vector<float> low = load_vector(row + begin), high = load_vector(row + begin + 4);
#pragma unroll
  for (int i = 0; i < kStep; ++i) {
    const float logit = i < 4 ? low.at[i % 4] : high.at[i % 4];
    logits[i] = begin + i < size ? logit : -INFINITY;
  }
}

// By the whole block. Sums are relative to the largest logit that a thread has seen so far
// (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018).
__device__ inline float log_sum_exp(const float* row, int size) {
  float largest = Max::kNeutral, sum = 0;
  for (int v = static_cast<int>(threadIdx.x) * kStep; v < size;
       v += static_cast<int>(blockDim.x) * kStep) {
    float logits[kStep];
    load_step(row, v, size, logits);
    float top = logits[0];
#pragma unroll
    for (int i = 1; i < kStep; ++i) top = fmaxf(top, logits[i]);
    if (top > largest) {
      sum *= expf(largest - top);
      largest = top;
    }
#pragma unroll
    for (int i = 0; i < kStep; ++i) sum += expf(logits[i] - largest);
  }
  const float of_all = reduce_block(largest, Max{});
  return of_all + logf(reduce_block(sum * expf(largest - of_all), Sum{}));
}

struct RowGradient {
  float lse;
  float factor;  // 0 for tokens that do not count
  int hit;       // the target's row here, or -1
};

// By the whole block, in place: factor * (softmax - one at the target), as T. A smaller T lies in
// the first part of its row: what a step stores was loaded before the barrier of that step.
template <typename T>
__device__ inline void to_gradient(float* row, int size, const RowGradient& g) {
  const int step = static_cast<int>(blockDim.x) * kStep;
  for (int begin = 0; begin < size; begin += step) {
    const int v = begin + static_cast<int>(threadIdx.x) * kStep;
    float logits[kStep];
    if (v < size) load_step(row, v, size, logits);
    if constexpr (sizeof(T) < sizeof(float)) __syncthreads();
    if (v >= size) continue;
    constexpr int kPerStore = Vector<T>::kSize;
    Vector<T> stored[kStep / kPerStore];
#pragma unroll
    for (int i = 0; i < kStep; ++i) {
      float gradient = g.factor * expf(logits[i] - g.lse);
      if (v + i == g.hit) gradient -= g.factor;
      stored[i / kPerStore].at[i % kPerStore] = from_float<T>(gradient);
    }
#pragma unroll
    for (int i = 0; i < kStep / kPerStore; ++i) {
      store_vector(reinterpret_cast<T*>(row) + v + i * kPerStore, stored[i]);
    }
  }
}

struct NoGradient {};

// Row by row: with kStatistics what CrossEntropyPart gives of it, lse and the target's logit (0 if
// it is not here, NaN if no table has it); otherwise lse is given. Then the row's gradient.
template <bool kStatistics, typename Gradient>
__global__ void __launch_bounds__(kMaxThreads)
    softmax_kernel(Logits logits, float* lses, float* target_logits, const float* dloss) {
  const int64_t row = blockIdx.x;
  float* const at = logits.at + row * logits.stride;
  const int target = logits.targets[row];
  const bool is_here = target >= logits.first && target - logits.first < logits.size;
  const int hit = target >= 0 && is_here ? target - logits.first : -1;
  float lse = 0;
  if constexpr (kStatistics) {
    if (threadIdx.x == 0) {
      const bool exists = target >= -1 && target < logits.whole;
      target_logits[row] = !exists ? NAN : hit >= 0 ? at[hit] : 0.0f;
    }
    lse = log_sum_exp(at, logits.size);
    if (threadIdx.x == 0) lses[row] = lse;
  } else {
    lse = lses[row];
  }
  if constexpr (!std::is_same_v<Gradient, NoGradient>) {
    to_gradient<Gradient>(at, logits.size, {lse, target == -1 ? 0.0f : *dloss, hit});
  }
}

// --- sums over tokens ----------------------------------------------------------------------------

constexpr int kMergeThreads = 1024;

// Thread 0 gets the sum over the block; in a fixed order.
__device__ inline double sum_block(double value) {
  __shared__ double of_warps[kMergeThreads / 32];
  const int thread = static_cast<int>(threadIdx.x);
  for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
  __syncthreads();
  if (thread % 32 == 0) of_warps[thread / 32] = value;
  __syncthreads();
  double sum = 0;
  for (int i = 0; thread == 0 && i < kMergeThreads / 32; ++i) sum += of_warps[i];
  return sum;
}

// parts (P,2,T): log-sum-exps and logits of targets.
struct Parts {
  const float* at;
  int64_t count;
  int64_t num_tokens;
};

// Relative to the largest: a rank without rows has -inf. Of one part it is that part's, to the bit.
__device__ inline float merged_lse(const Parts& parts, int64_t t) {
  float largest = Max::kNeutral;
  for (int64_t p = 0; p < parts.count; ++p) {
    largest = fmaxf(largest, parts.at[2 * p * parts.num_tokens + t]);
  }
  double sum = 0;
  for (int64_t p = 0; p < parts.count; ++p) {
    sum += exp(static_cast<double>(parts.at[2 * p * parts.num_tokens + t]) - largest);
  }
  return largest + static_cast<float>(log(sum));
}

// One block: a few microseconds, beside products of milliseconds. `lses` may be null.
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(Parts parts, const int32_t* targets, float* lses, float* loss_sum,
                 float* num_valid) {
  double loss = 0, valid = 0;
  for (int64_t t = threadIdx.x; t < parts.num_tokens; t += kMergeThreads) {
    const float lse = merged_lse(parts, t);
    if (lses != nullptr) lses[t] = lse;
    if (targets[t] == -1) continue;
    float logit = 0;  // all but one are 0
    for (int64_t p = 0; p < parts.count; ++p) logit += parts.at[(2 * p + 1) * parts.num_tokens + t];
    loss += lse - logit;
    valid += 1;
  }
  loss = sum_block(loss);
  valid = sum_block(valid);
  if (threadIdx.x != 0) return;
  *loss_sum = static_cast<float>(loss);
  *num_valid = static_cast<float>(valid);
}

// --- products, chunk by chunk --------------------------------------------------------------------

int64_t padded_row(int64_t vocab_size) { return (vocab_size + 31) / 32 * 32; }

int64_t tokens_per_chunk(int64_t num_tokens, int64_t vocab_size) {
  const int64_t row_bytes = std::max<int64_t>(1, padded_row(vocab_size)) * 4;
  const int64_t fitting = kLogitsBytes / row_bytes / kMinTokens * kMinTokens;
  return std::min(num_tokens, std::clamp(fitting, kMinTokens, kMaxTokens));
}

struct LossShape {
  int64_t num_tokens;
  int64_t width;       // D
  int64_t vocab_size;  // V, the rows of the weight that are here
  int64_t chunk() const { return tokens_per_chunk(num_tokens, vocab_size); }
  int64_t product_bytes(bool with_gradients) const {
    const int64_t logits = product_workspace_bytes(chunk(), vocab_size);
    if (!with_gradients) return logits;
    return std::max({logits, product_workspace_bytes(chunk(), width),
                     product_workspace_bytes(vocab_size, width)});
  }
};

int64_t loss_workspace_bytes(const WorkspaceQuery& query, bool with_gradients) {
  const Shape& weight = query.inputs[1].shape;
  const LossShape s{query.inputs[0].shape[0], weight[1], weight[0]};
  return kWorkspaceSlack + taken_bytes<float>(s.chunk() * padded_row(s.vocab_size)) +
         taken_bytes<float>(2 * s.num_tokens) +
         taken_bytes<std::byte>(s.product_bytes(with_gradients));
}

// The inputs x, weight, targets of an op, its workspace, and what is done with them.
class Projection {
 public:
  Projection(const KernelArgs& args, const Queue& queue, bool with_gradients)
      : x_(args.inputs[0]),
        weight_(args.inputs[1]),
        targets_(args.inputs[2].as<int32_t>()),
        shape_{x_.dim(0), x_.dim(1), weight_.dim(0)},
        queue_(queue) {
    Workspace workspace(args);
    logits_ = workspace.take<float>(shape_.chunk() * padded_row(shape_.vocab_size));
    parts_ = workspace.take<float>(2 * shape_.num_tokens);
    product_bytes_ = shape_.product_bytes(with_gradients);
    product_workspace_ = workspace.take<std::byte>(product_bytes_);
  }

  float* parts() const { return parts_; }  // (2,T), scratch
  int64_t num_tokens() const { return shape_.num_tokens; }

  // body(first, count) for each chunk of tokens; their logits are there.
  template <typename Body>
  void for_each_chunk(const Body& body) const {
    for (int64_t first = 0; first < shape_.num_tokens; first += shape_.chunk()) {
      const int64_t count = std::min(shape_.chunk(), shape_.num_tokens - first);
      multiply({.m = count,
                .n = shape_.vocab_size,
                .k = shape_.width,
                .type = x_.dtype,
                .output_type = DType::f32,
                .a = {row_of_x(x_, first), shape_.width},
                .b = {weight_.data, shape_.width, true},
                .d = logits_,
                .stride = padded_row(shape_.vocab_size)});
      body(first, count);
    }
  }

  // Pointers are to the first token of the chunk.
  template <bool kStatistics, typename Gradient>
  void softmax(int64_t first, int64_t count, float* lse, float* target_logits,
               const float* dloss) const {
    const auto size = static_cast<int>(shape_.vocab_size);
    const Logits logits{logits_,
                        padded_row(shape_.vocab_size),
                        size,
                        static_cast<int>(weight_.begin(0)),
                        static_cast<int>(weight_.whole_dim(0)),
                        targets_ + first};
    const int64_t warps = std::clamp<int64_t>(divide_up(size, 32 * kStep), 1, kMaxThreads / 32);
    launch({static_cast<unsigned>(count), static_cast<unsigned>(32 * warps)}, queue_.stream,
           softmax_kernel<kStatistics, Gradient>, logits, lse, target_logits, dloss);
  }

  // dx = dlogits weight for the tokens of the chunk; dweight (f32) += dlogits^T x.
  void backpropagate(int64_t first, int64_t count, const TensorView& dx,
                     const TensorView& dweight) const {
    // Gradients are like x, in rows of f32.
    const int64_t stride = padded_row(shape_.vocab_size) * 4 / size_bytes(x_.dtype);
    multiply({.m = count,
              .n = shape_.width,
              .k = shape_.vocab_size,
              .type = x_.dtype,
              .output_type = dx.dtype,
              .a = {logits_, stride},
              .b = {weight_.data, shape_.width},
              .d = row_of_x(dx, first),
              .stride = shape_.width});
    multiply({.m = shape_.vocab_size,
              .n = shape_.width,
              .k = count,
              .type = x_.dtype,
              .output_type = DType::f32,
              .a = {logits_, stride, true},
              .b = {row_of_x(x_, first), shape_.width},
              .addend = first > 0 ? dweight.data : nullptr,
              .d = dweight.data,
              .stride = shape_.width});
  }

  // Of no tokens the chunks write nothing.
  void zero_without_tokens(const TensorView& dweight) const {
    if (shape_.num_tokens > 0) return;
    check_cuda(
        cudaMemsetAsync(dweight.data, 0, static_cast<size_t>(dweight.size()) * 4, queue_.stream),
        "zeroing a gradient");
  }

  void sum_losses(const TensorView& loss_sum, const TensorView& num_valid) const {
    launch({1, kMergeThreads}, queue_.stream, merge_kernel, Parts{parts_, 1, shape_.num_tokens},
           targets_, nullptr, loss_sum.as<float>(), num_valid.as<float>());
  }

  // Of ops that know no other ranks: expand_loss has replaced them where others have rows, too.
  void check_whole() const {
    check_that(weight_.dim(0) == weight_.whole_dim(0),
               "linear_cross_entropy has a part of the vocabulary");
  }

 private:
  void* row_of_x(const TensorView& like_x, int64_t row) const {
    return like_x.as<std::byte>() + row * shape_.width * size_bytes(like_x.dtype);
  }
  void multiply(const Product& product) const {
    queue_.cublas_lt->multiply(product, {product_workspace_, product_bytes_}, queue_);
  }

  const TensorView& x_;
  const TensorView& weight_;
  const int32_t* targets_;
  LossShape shape_;
  const Queue& queue_;
  float* logits_;
  float* parts_;
  int64_t product_bytes_;
  std::byte* product_workspace_;
};

}  // namespace

int64_t workspace_bytes(const LinearCrossEntropy&, const WorkspaceQuery& query) {
  return loss_workspace_bytes(query, false);
}

void run(const LinearCrossEntropy&, const KernelArgs& args, const Queue& queue) {
  const Projection p(args, queue, false);
  p.check_whole();
  float* const logits = p.parts() + p.num_tokens();
  p.for_each_chunk([&](int64_t first, int64_t count) {
    p.softmax<true, NoGradient>(first, count, p.parts() + first, logits + first, nullptr);
  });
  p.sum_losses(args.outputs[0], args.outputs[1]);
}

int64_t workspace_bytes(const LinearCrossEntropyGrad&, const WorkspaceQuery& query) {
  return loss_workspace_bytes(query, true);
}

void run(const LinearCrossEntropyGrad&, const KernelArgs& args, const Queue& queue) {
  const Projection p(args, queue, true);
  p.check_whole();
  p.zero_without_tokens(args.outputs[3]);
  float* const logits = p.parts() + p.num_tokens();
  p.for_each_chunk([&](int64_t first, int64_t count) {
    with_type(args.inputs[0].dtype, [&](auto type) {
      p.softmax<true, decltype(type)>(first, count, p.parts() + first, logits + first,
                                      args.inputs[3].as<float>());
    });
    p.backpropagate(first, count, args.outputs[2], args.outputs[3]);
  });
  p.sum_losses(args.outputs[0], args.outputs[1]);
}

// --- where ranks share the vocabulary ------------------------------------------------------------

int64_t workspace_bytes(const CrossEntropyPart&, const WorkspaceQuery& query) {
  return loss_workspace_bytes(query, false);
}

void run(const CrossEntropyPart&, const KernelArgs& args, const Queue& queue) {
  const Projection p(args, queue, false);
  float* const lse = args.outputs[0].as<float>();
  float* const logits = lse + p.num_tokens();
  p.for_each_chunk([&](int64_t first, int64_t count) {
    p.softmax<true, NoGradient>(first, count, lse + first, logits + first, nullptr);
  });
}

// Sums in a fixed order of tokens, so that they have the same bits on every rank.
void run(const MergeCrossEntropy&, const KernelArgs& args, const Queue& queue) {
  const Parts parts{args.inputs[0].as<float>(), args.inputs[0].dim(0), args.inputs[1].size()};
  launch({1, kMergeThreads}, queue.stream, merge_kernel, parts, args.inputs[1].as<int32_t>(),
         args.outputs[0].as<float>(), args.outputs[1].as<float>(), args.outputs[2].as<float>());
}

int64_t workspace_bytes(const CrossEntropyPartGrad&, const WorkspaceQuery& query) {
  return loss_workspace_bytes(query, true);
}

void run(const CrossEntropyPartGrad&, const KernelArgs& args, const Queue& queue) {
  const Projection p(args, queue, true);
  p.zero_without_tokens(args.outputs[1]);
  float* const lse = args.inputs[3].as<float>();
  p.for_each_chunk([&](int64_t first, int64_t count) {
    with_type(args.inputs[0].dtype, [&](auto type) {
      p.softmax<false, decltype(type)>(first, count, lse + first, nullptr,
                                       args.inputs[4].as<float>());
    });
    p.backpropagate(first, count, args.outputs[0], args.outputs[1]);
  });
}

}  // namespace caravan::cuda
