// What the framework asks of every op, as overload sets over the structs of runtime/ops.h.
// The answers of an op stand together in runtime/ops/<family>.cpp.
#pragma once

#include <span>
#include <vector>

#include "runtime/graph.h"
#include "runtime/ops.h"

namespace caravan {

class Builder;

// --- infer: shapes and dtypes of the outputs -----------------------------------------------------
// Throws an internal error that names the op and the shapes when the inputs do not fit it.
// Collectives answer for a mesh through `axis_size` (1 for all other ops).
TensorSpecs infer(const Op& op, std::span<const TensorSpec> inputs, int axis_size = 1);

// --- backward: gradients of the inputs, as new nodes ---------------------------------------------
struct BackwardContext {
  Builder& builder;
  std::span<const ValueId> inputs;
  std::span<const ValueId> outputs;
  std::span<const ValueId> output_gradients;  // ValueId::none where nothing flows back
};
// One per input; ValueId::none where the input has no gradient (ids, positions).
std::vector<ValueId> backward(const Op& op, const BackwardContext& context);

// --- shard: the placement rule, one axis of the mesh at a time -----------------------------------
struct ShardRule {
  std::vector<AxisPlacement> inputs;   // what the op needs
  std::vector<AxisPlacement> outputs;  // what it then gives
};
// `inputs`: how each input lies along the axis now. Partial and sharded inputs that the op cannot
// take come back as replicate.
ShardRule shard(const Op& op, std::span<const AxisPlacement> inputs);
// Whether sharded tokens must be whole sequences. tp cuts them anywhere: there the op gets them
// all.
bool takes_whole_sequences(const Op& op);

// --- cost ----------------------------------------------------------------------------------------
struct Cost {
  double flops = 0;
  double bytes = 0;  // read and written, each tensor once
};
Cost cost(const Op& op, std::span<const TensorSpec> inputs, std::span<const TensorSpec> outputs);

}  // namespace caravan
