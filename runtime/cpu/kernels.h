// The CPU kernels: one `run` per op of runtime/ops.h, by family in the file of that name.
//
// Shapes are those in ops.h; floats are f32 (Cast alone knows bf16), ids i32, everything dense and
// row-major. Kernels allocate nothing, need `workspace_bytes` of scratch memory, and give the same
// bits for any number of threads. Inputs and outputs do not overlap, except where graph.h's
// `aliases` says so.
#pragma once

#include <span>

#include "runtime/backend.h"
#include "runtime/cpu/threads.h"
#include "runtime/ops.h"

namespace caravan::cpu {

void run(const Embedding& op, const KernelArgs& args, const CpuThreads& threads);
void run(const EmbeddingGrad& op, const KernelArgs& args, const CpuThreads& threads);

void run(const MatMul& op, const KernelArgs& args, const CpuThreads& threads);
void run(const AddBias& op, const KernelArgs& args, const CpuThreads& threads);
void run(const SumRows& op, const KernelArgs& args, const CpuThreads& threads);

void run(const RmsNorm& op, const KernelArgs& args, const CpuThreads& threads);
void run(const RmsNormGrad& op, const KernelArgs& args, const CpuThreads& threads);

void run(const HeadNorm& op, const KernelArgs& args, const CpuThreads& threads);
void run(const HeadNormGrad& op, const KernelArgs& args, const CpuThreads& threads);

void run(const Rope& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Attention& op, const KernelArgs& args, const CpuThreads& threads);
void run(const AttentionGrad& op, const KernelArgs& args, const CpuThreads& threads);

void run(const TemperatureScale& op, const KernelArgs& args, const CpuThreads& threads);
void run(const ChunkStart& op, const KernelArgs& args, const CpuThreads& threads);

void run(const SwiGlu& op, const KernelArgs& args, const CpuThreads& threads);
void run(const SwiGluGrad& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Add& op, const KernelArgs& args, const CpuThreads& threads);

void run(const Cast& op, const KernelArgs& args, const CpuThreads& threads);

void run(const LinearCrossEntropy& op, const KernelArgs& args, const CpuThreads& threads);
void run(const LinearCrossEntropyGrad& op, const KernelArgs& args, const CpuThreads& threads);
void run(const CrossEntropyPart& op, const KernelArgs& args, const CpuThreads& threads);
void run(const MergeCrossEntropy& op, const KernelArgs& args, const CpuThreads& threads);
void run(const CrossEntropyPartGrad& op, const KernelArgs& args, const CpuThreads& threads);

void run(const Route& op, const KernelArgs& args, const CpuThreads& threads);
void run(const RouteGrad& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Experts& op, const KernelArgs& args, const CpuThreads& threads);
void run(const ExpertsGrad& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Assign& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Dispatch& op, const KernelArgs& args, const CpuThreads& threads);
void run(const DispatchGrad& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Combine& op, const KernelArgs& args, const CpuThreads& threads);
void run(const GroupedMatMul& op, const KernelArgs& args, const CpuThreads& threads);
void run(const GroupedMatMulGrad& op, const KernelArgs& args, const CpuThreads& threads);

void run(const Fill& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Divide& op, const KernelArgs& args, const CpuThreads& threads);

void run(const Accumulate& op, const KernelArgs& args, const CpuThreads& threads);
void run(const SquaredNorm& op, const KernelArgs& args, const CpuThreads& threads);
void run(const ClipScale& op, const KernelArgs& args, const CpuThreads& threads);
void run(const AdamW& op, const KernelArgs& args, const CpuThreads& threads);
void run(const UpdateRouterBias& op, const KernelArgs& args, const CpuThreads& threads);

// Collectives use the calling thread only: they may be on the communication thread.
void run(const AllReduce& op, const KernelArgs& args, const CpuThreads& threads);
void run(const AllGather& op, const KernelArgs& args, const CpuThreads& threads);
void run(const ReduceScatter& op, const KernelArgs& args, const CpuThreads& threads);
void run(const AllToAll& op, const KernelArgs& args, const CpuThreads& threads);
void run(const AllReduceMax& op, const KernelArgs& args, const CpuThreads& threads);
void run(const ExchangeRows& op, const KernelArgs& args, const CpuThreads& threads);
void run(const ReturnRows& op, const KernelArgs& args, const CpuThreads& threads);
void run(const Slice& op, const KernelArgs& args, const CpuThreads& threads);

// The values to add to the first output, or null; in place they are the output itself.
template <typename OpStruct>
const float* addend_of(const OpStruct& op, const KernelArgs& args) {
  return op.addend == Addend::none ? nullptr : args.inputs.back().as<float>();
}

// What the scratch memory of an op depends on: shapes as planned, threads of the compute stream.
struct WorkspaceQuery {
  std::span<const TensorSpec> inputs;
  std::span<const TensorSpec> outputs;
  int num_threads = 1;
};

template <typename OpStruct>
int64_t workspace_bytes(const OpStruct&, const WorkspaceQuery&) {
  return 0;  // most ops need none
}
int64_t workspace_bytes(const MatMul& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const SumRows& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const RmsNormGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Rope& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Attention& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const AttentionGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const LinearCrossEntropy& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const LinearCrossEntropyGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Route& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const RouteGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Assign& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Dispatch& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const DispatchGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const Combine& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const GroupedMatMul& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const GroupedMatMulGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const CrossEntropyPart& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const CrossEntropyPartGrad& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const SquaredNorm& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const AllGather& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const ReduceScatter& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const AllToAll& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const ExchangeRows& op, const WorkspaceQuery& query);
int64_t workspace_bytes(const ReturnRows& op, const WorkspaceQuery& query);

}  // namespace caravan::cpu
