// The kernels of the CUDA backend: one overload of `run` per op, in the .cu file of its family.
//
// `run` puts kernels on the queue's stream and returns. Pointers are device memory. Tensors may
// have any sizes; their data is aligned to 64 bytes at least (the planner's alignment), rows are
// not. f32 and bf16 both work wherever ops.h says "like x"; sums are f32. Every sum has a fixed
// order: no atomics on floating-point numbers. What a kernel computes: runtime/ops.h and the slow
// specification, runtime/cpu/reference.h.
#pragma once

#include <cuda_runtime_api.h>

#include "runtime/backend.h"

namespace caravan::cuda {

class CublasLt;        // runtime/cuda/cublas_lt.h
class CudnnAttention;  // runtime/cuda/cudnn_attention.h
struct Host;           // runtime/cuda/staging.h

// Where kernels go, and what they may use.
struct Queue {
  cudaStream_t stream = nullptr;
  int num_multiprocessors = 1;
  int64_t shared_bytes = 0;    // that a block can have at most
  bool deterministic = false;  // only algorithms that give the same bits in every run
  bool tunes = true;           // products may be timed; never when deterministic
  CublasLt* cublas_lt = nullptr;
  CudnnAttention* cudnn_attention = nullptr;  // null: not in this build
  Host* host = nullptr;                       // for collectives that need numbers on the host
};

// --- embedding.cu ---
void run(const Embedding& op, const KernelArgs& args, const Queue& queue);
void run(const EmbeddingGrad& op, const KernelArgs& args, const Queue& queue);
// --- matmul.cpp ---
void run(const MatMul& op, const KernelArgs& args, const Queue& queue);
// --- bias.cu ---
void run(const AddBias& op, const KernelArgs& args, const Queue& queue);
void run(const SumRows& op, const KernelArgs& args, const Queue& queue);
// --- norm.cu ---
void run(const RmsNorm& op, const KernelArgs& args, const Queue& queue);
void run(const RmsNormGrad& op, const KernelArgs& args, const Queue& queue);
void run(const HeadNorm& op, const KernelArgs& args, const Queue& queue);
void run(const HeadNormGrad& op, const KernelArgs& args, const Queue& queue);
// --- rope.cu ---
void run(const Rope& op, const KernelArgs& args, const Queue& queue);
void run(const TemperatureScale& op, const KernelArgs& args, const Queue& queue);
void run(const ChunkStart& op, const KernelArgs& args, const Queue& queue);
// --- attention.cu, attention_grad.cu ---
void run(const Attention& op, const KernelArgs& args, const Queue& queue);
void run(const AttentionGrad& op, const KernelArgs& args, const Queue& queue);
// --- activation.cu ---
void run(const SwiGlu& op, const KernelArgs& args, const Queue& queue);
void run(const SwiGluGrad& op, const KernelArgs& args, const Queue& queue);
void run(const Add& op, const KernelArgs& args, const Queue& queue);
// --- cast.cu ---
void run(const Cast& op, const KernelArgs& args, const Queue& queue);
// --- loss.cu ---
void run(const LinearCrossEntropy& op, const KernelArgs& args, const Queue& queue);
void run(const LinearCrossEntropyGrad& op, const KernelArgs& args, const Queue& queue);
void run(const CrossEntropyPart& op, const KernelArgs& args, const Queue& queue);
void run(const MergeCrossEntropy& op, const KernelArgs& args, const Queue& queue);
void run(const CrossEntropyPartGrad& op, const KernelArgs& args, const Queue& queue);
// --- moe.cu, moe_rows.cu, moe_matmul.cu ---
void run(const Experts& op, const KernelArgs& args, const Queue& queue);
void run(const ExpertsGrad& op, const KernelArgs& args, const Queue& queue);
void run(const Route& op, const KernelArgs& args, const Queue& queue);
void run(const RouteGrad& op, const KernelArgs& args, const Queue& queue);
void run(const Assign& op, const KernelArgs& args, const Queue& queue);
void run(const Dispatch& op, const KernelArgs& args, const Queue& queue);
void run(const DispatchGrad& op, const KernelArgs& args, const Queue& queue);
void run(const Combine& op, const KernelArgs& args, const Queue& queue);
void run(const GroupedMatMul& op, const KernelArgs& args, const Queue& queue);
void run(const GroupedMatMulGrad& op, const KernelArgs& args, const Queue& queue);
// --- scalar.cu ---
void run(const Fill& op, const KernelArgs& args, const Queue& queue);
void run(const Divide& op, const KernelArgs& args, const Queue& queue);
// --- update.cu ---
void run(const Accumulate& op, const KernelArgs& args, const Queue& queue);
void run(const SquaredNorm& op, const KernelArgs& args, const Queue& queue);
void run(const ClipScale& op, const KernelArgs& args, const Queue& queue);
void run(const AdamW& op, const KernelArgs& args, const Queue& queue);
void run(const UpdateRouterBias& op, const KernelArgs& args, const Queue& queue);
// --- collective.cpp ---
void run(const AllReduce& op, const KernelArgs& args, const Queue& queue);
void run(const AllGather& op, const KernelArgs& args, const Queue& queue);
void run(const ReduceScatter& op, const KernelArgs& args, const Queue& queue);
void run(const AllToAll& op, const KernelArgs& args, const Queue& queue);
void run(const AllReduceMax& op, const KernelArgs& args, const Queue& queue);
void run(const ExchangeRows& op, const KernelArgs& args, const Queue& queue);
void run(const ReturnRows& op, const KernelArgs& args, const Queue& queue);
void run(const Slice& op, const KernelArgs& args, const Queue& queue);

// Scratch memory of an op, from shapes as planned. The same on every device, so that plans are.
struct WorkspaceQuery {
  std::span<const TensorSpec> inputs;
  std::span<const TensorSpec> outputs;
};

template <typename OpStruct>
int64_t workspace_bytes(const OpStruct&, const WorkspaceQuery&) {
  return 0;  // most ops need none
}
int64_t workspace_bytes(const EmbeddingGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const SumRows& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const RmsNormGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const SquaredNorm& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Attention& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const AttentionGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const MatMul& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const LinearCrossEntropy& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const LinearCrossEntropyGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const CrossEntropyPart& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const CrossEntropyPartGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Route& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const RouteGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Assign& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const DispatchGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Combine& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const AllGather& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const ReduceScatter& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const AllToAll& op, const WorkspaceQuery& query);

}  // namespace caravan::cuda
