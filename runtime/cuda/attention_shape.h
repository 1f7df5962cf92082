// What attention works on: sizes, and which key/value head a query head reads.
#pragma once

#include <cuda_runtime.h>

#include "runtime/backend.h"
#include "runtime/cuda/kernels.h"

namespace caravan::cuda {

struct AttentionShape {
  int num_sequences;
  int sequence_len;
  int head_dim;
  int num_heads;     // of queries
  int num_kv_heads;  // some of which may have no query head here
  int group;         // query heads of a key/value head, some of which may be elsewhere
  int first_head;    // of queries, counted from the first of key/value head 0
  float scale;       // of scores: 1 / sqrt(head_dim)

  __host__ __device__ int64_t query_width() const { return int64_t{num_heads} * head_dim; }
  __host__ __device__ int64_t key_width() const { return int64_t{num_kv_heads} * head_dim; }
  __host__ __device__ int kv_head(int head) const { return (first_head + head) / group; }
  // The query heads that read a key/value head: from begin_of(kv_head) to begin_of(kv_head + 1).
  __host__ __device__ int begin_of(int kv_head) const {
    const int head = kv_head * group - first_head;
    return head < 0 ? 0 : head < num_heads ? head : num_heads;
  }
};

// Of what Attention and AttentionGrad say; throws where tensors do not fit.
AttentionShape attention_shape(const Attention& op, const KernelArgs& args);
AttentionShape attention_shape(const AttentionGrad& op, const KernelArgs& args);

// What the kernels read and write: (T,H*h) and (T,KV*h), statistics (T,H).
template <typename T>
struct ForwardArgs {
  AttentionShape shape;
  const T* q;
  const T* k;
  const T* v;
  const int32_t* document_start;  // (T); null: whole sequences
  T* out;
  float* lse;
};
template <typename T>
struct BackwardArgs {
  AttentionShape shape;
  const T* q;
  const T* k;
  const T* v;
  const int32_t* document_start;
  const T* out;
  const float* lse;
  const T* dout;
  T* dq;
  T* dk;
  T* dv;
  float* delta;  // (T,H): the sum of dout * out, which the softmax takes off every gradient
};

// Of scores times log2(e) what 2 is raised to.
inline constexpr float kLog2E = 1.44269504f;
// A score that is not seen. The largest score of a row begins at kLeastScore, so that the weight of
// what is not seen is 0 from the first tile on.
inline constexpr float kUnseen = -1e30f;
inline constexpr float kLeastScore = -5e29f;

}  // namespace caravan::cuda
