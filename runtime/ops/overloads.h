// The checklist of an op: one overload per question, defined in runtime/ops/<family>.cpp; a
// missing one does not link. Only runtime/ops/*.cpp include this; everybody else asks through
// runtime/ops/rules.h.
#pragma once

#include <initializer_list>
#include <string>

#include "runtime/builder.h"
#include "runtime/ops/rules.h"

namespace caravan {

using Specs = std::span<const TensorSpec>;
using AxisPlacements = std::span<const AxisPlacement>;
using Gradients = std::vector<ValueId>;

#define CARAVAN_DECLARE_RULES(OpStruct)                            \
  TensorSpecs infer(const OpStruct&, Specs inputs, int axis_size); \
  Gradients backward(const OpStruct&, const BackwardContext&);     \
  ShardRule shard(const OpStruct&, AxisPlacements inputs);         \
  Cost cost(const OpStruct&, Specs inputs, Specs outputs);
CARAVAN_DECLARE_RULES(Embedding)
CARAVAN_DECLARE_RULES(EmbeddingGrad)
CARAVAN_DECLARE_RULES(MatMul)
CARAVAN_DECLARE_RULES(AddBias)
CARAVAN_DECLARE_RULES(SumRows)
CARAVAN_DECLARE_RULES(RmsNorm)
CARAVAN_DECLARE_RULES(RmsNormGrad)
CARAVAN_DECLARE_RULES(Rope)
CARAVAN_DECLARE_RULES(Attention)
CARAVAN_DECLARE_RULES(AttentionGrad)
CARAVAN_DECLARE_RULES(SwiGlu)
CARAVAN_DECLARE_RULES(SwiGluGrad)
CARAVAN_DECLARE_RULES(Add)
CARAVAN_DECLARE_RULES(LinearCrossEntropy)
CARAVAN_DECLARE_RULES(LinearCrossEntropyGrad)
CARAVAN_DECLARE_RULES(CrossEntropyPart)
CARAVAN_DECLARE_RULES(MergeCrossEntropy)
CARAVAN_DECLARE_RULES(CrossEntropyPartGrad)
CARAVAN_DECLARE_RULES(Fill)
CARAVAN_DECLARE_RULES(Divide)
CARAVAN_DECLARE_RULES(Accumulate)
CARAVAN_DECLARE_RULES(SquaredNorm)
CARAVAN_DECLARE_RULES(ClipScale)
CARAVAN_DECLARE_RULES(AdamW)
CARAVAN_DECLARE_RULES(AllReduce)
CARAVAN_DECLARE_RULES(AllGather)
CARAVAN_DECLARE_RULES(ReduceScatter)
CARAVAN_DECLARE_RULES(AllToAll)
CARAVAN_DECLARE_RULES(Slice)
CARAVAN_DECLARE_RULES(HeadNorm)
CARAVAN_DECLARE_RULES(HeadNormGrad)
CARAVAN_DECLARE_RULES(TemperatureScale)
CARAVAN_DECLARE_RULES(ChunkStart)
CARAVAN_DECLARE_RULES(Route)
CARAVAN_DECLARE_RULES(RouteGrad)
CARAVAN_DECLARE_RULES(Experts)
CARAVAN_DECLARE_RULES(ExpertsGrad)
CARAVAN_DECLARE_RULES(Assign)
CARAVAN_DECLARE_RULES(Dispatch)
CARAVAN_DECLARE_RULES(DispatchGrad)
CARAVAN_DECLARE_RULES(Combine)
CARAVAN_DECLARE_RULES(GroupedMatMul)
CARAVAN_DECLARE_RULES(GroupedMatMulGrad)
CARAVAN_DECLARE_RULES(UpdateRouterBias)
CARAVAN_DECLARE_RULES(AllReduceMax)
CARAVAN_DECLARE_RULES(ExchangeRows)
CARAVAN_DECLARE_RULES(ReturnRows)
CARAVAN_DECLARE_RULES(Cast)
#undef CARAVAN_DECLARE_RULES

// --- what the rules of several families share
// ------------------------------------------------------

// Throws the internal error of a shape rule: "[matmul] f32[8,16], f32[8,4]: <what must hold>".
void expect(bool ok, std::string_view op, Specs inputs, std::string_view what);
void expect_count(std::string_view op, Specs inputs, size_t count);
// Types: see runtime/ops.h. The inputs of these numbers are all f32, or all of one floating type.
void expect_f32(std::string_view op, Specs inputs, std::initializer_list<size_t> which);
void expect_one_type(std::string_view op, Specs inputs, std::initializer_list<size_t> which);
TensorSpec as_f32(TensorSpec spec);  // of the same shape: the gradient of a weight

// "Not differentiable" is written, never defaulted: for gradients, updates and collectives, which
// parallelize or the optimizer add after autodiff.
[[noreturn]] Gradients not_differentiable(std::string_view op);

// Of ops that may have an addend as their last input. The shape rule returns its outputs through
// expect_addend; parallelize comes before addends, so they have no placement rule of their own.
constexpr size_t num_addends(Addend addend) { return addend == Addend::none ? 0 : 1; }
TensorSpecs expect_addend(std::string_view op, Addend addend, Specs inputs, TensorSpecs outputs);

// Placement rules.
[[noreturn]] ShardRule placed_already(std::string_view op);  // of ops that come after parallelize
ShardRule all_replicated(size_t num_inputs, size_t num_outputs);
// Element by element over tensors of one shape: sharded alike if any is sharded; if `linear`,
// partial where all are partial; replicated otherwise.
ShardRule elementwise(AxisPlacements inputs, size_t num_outputs, bool linear);

inline double elements(const TensorSpec& spec) {
  return static_cast<double>(num_elements(spec.shape));
}

// Reads and writes every tensor once.
Cost streaming(double flops, Specs inputs, Specs outputs);

}  // namespace caravan
