// The specification of the ops: plain loops that read like the formula, sums in double.
//
// Tests compare the kernels of every backend with these. They are slow, use no workspace and no
// threads, and hold T x T and T x V. Collectives are specified by communicator.h.
// Floats are f32 in all of them (Cast alone looks at the type); run_any takes bf16 as well.
#pragma once

#include "runtime/backend.h"
#include "runtime/ops.h"

namespace caravan::reference {

void run(const Embedding& op, const KernelArgs& args);
void run(const EmbeddingGrad& op, const KernelArgs& args);
void run(const MatMul& op, const KernelArgs& args);
void run(const AddBias& op, const KernelArgs& args);
void run(const SumRows& op, const KernelArgs& args);
void run(const RmsNorm& op, const KernelArgs& args);
void run(const RmsNormGrad& op, const KernelArgs& args);
void run(const HeadNorm& op, const KernelArgs& args);
void run(const HeadNormGrad& op, const KernelArgs& args);
void run(const Rope& op, const KernelArgs& args);
void run(const TemperatureScale& op, const KernelArgs& args);
void run(const ChunkStart& op, const KernelArgs& args);
void run(const Attention& op, const KernelArgs& args);
void run(const AttentionGrad& op, const KernelArgs& args);
void run(const SwiGlu& op, const KernelArgs& args);
void run(const SwiGluGrad& op, const KernelArgs& args);
void run(const Add& op, const KernelArgs& args);
void run(const Cast& op, const KernelArgs& args);
void run(const LinearCrossEntropy& op, const KernelArgs& args);
void run(const LinearCrossEntropyGrad& op, const KernelArgs& args);
void run(const CrossEntropyPart& op, const KernelArgs& args);
void run(const MergeCrossEntropy& op, const KernelArgs& args);
void run(const CrossEntropyPartGrad& op, const KernelArgs& args);
void run(const Fill& op, const KernelArgs& args);
void run(const Divide& op, const KernelArgs& args);
void run(const Accumulate& op, const KernelArgs& args);
void run(const SquaredNorm& op, const KernelArgs& args);
void run(const ClipScale& op, const KernelArgs& args);
void run(const AdamW& op, const KernelArgs& args);
void run(const Route& op, const KernelArgs& args);
void run(const RouteGrad& op, const KernelArgs& args);
void run(const Assign& op, const KernelArgs& args);
void run(const Dispatch& op, const KernelArgs& args);
void run(const DispatchGrad& op, const KernelArgs& args);
void run(const Combine& op, const KernelArgs& args);
void run(const GroupedMatMul& op, const KernelArgs& args);
void run(const GroupedMatMulGrad& op, const KernelArgs& args);
void run(const UpdateRouterBias& op, const KernelArgs& args);

// Any op that has a specification, with inputs and outputs of any type: bf16 inputs are widened,
// the op computes in f32, and what it gives is rounded to bf16 where an output has that type. The
// judge of kernels that compute in bf16. An internal error for collectives, Experts and
// ExpertsGrad.
void run_any(const Op& op, const KernelArgs& args);
bool is_specified(const Op& op);

}  // namespace caravan::reference
