// Attention by cuDNN's fused kernels: bf16, whole sequences. One object per device; not for several
// threads at a time.
//
// A plan is made when a case first runs, which takes a while and may not happen inside a recording;
// it is kept. What cuDNN does not take runs on our own kernels, and notes() says why.
#pragma once

#include <cuda_bf16.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/cuda/attention_shape.h"

namespace caravan::cuda {

struct CudnnWorkspace {
  void* data;
  int64_t bytes;
};

class CudnnAttention {
 public:
  virtual ~CudnnAttention() = default;
  // False: nothing was put on the stream, our own kernels have to do it.
  virtual bool forward(const ForwardArgs<__nv_bfloat16>& args, const CudnnWorkspace& workspace,
                       const Queue& queue) = 0;
  virtual bool backward(const BackwardArgs<__nv_bfloat16>& args, const CudnnWorkspace& workspace,
                        const Queue& queue) = 0;
  // What it did not take and why, a line each.
  virtual const std::vector<std::string>& notes() const = 0;
};

// Null where the build or the machine has no cuDNN: `problem` says which.
std::unique_ptr<CudnnAttention> make_cudnn_attention(std::string& problem);
std::string cudnn_version();  // "9.12.0"; empty: there is none

// Whether cuDNN is asked: whether any of its kernels may know the case.
template <typename OpStruct>  // Attention, AttentionGrad
bool cudnn_may_take(const OpStruct& op, DType dtype) {
  return dtype == DType::bf16 && op.whole_sequences && op.head_dim % 8 == 0 && op.head_dim <= 256 &&
         op.sequence_len > 1;
}

// How many bytes of workspace it may want at most, by shapes as planned; 0 if it is not asked. The
// largest needs that are known, of kernels for Hopper:
//   forward: statistics (T,H) f32 in cuDNN's order
//   backward: the same and sums (T,H) f32, dq (T,H*h) f32, and where key/value heads have a group
//   of query heads, dk and dv of each query head, in f32 at most
// with sequences filled up to multiples of 128 tokens, and kCudnnSlack for what it does not tell.
// A plan that wants more is not used.
inline constexpr int64_t kCudnnSlack = int64_t{16} << 20;
int64_t cudnn_workspace_bytes(const Attention& op, const WorkspaceQuery& query);
int64_t cudnn_workspace_bytes(const AttentionGrad& op, const WorkspaceQuery& query);

}  // namespace caravan::cuda
