// Rules of casts between floating types.
#include "runtime/ops/overloads.h"

namespace caravan {

TensorSpecs infer(const Cast& op, Specs in, int) {
  expect_count("cast", in, 1);
  expect(in[0].dtype != DType::i32 && op.to != DType::i32, "cast", in,
         "casts between f32 and bf16 only");
  return {{in[0].shape, op.to}};
}

// Gradients of weights are f32 whatever type the weight was read in: those pass as they are.
Gradients backward(const Cast&, const BackwardContext& c) {
  return {c.builder.cast(c.output_gradients[0], c.builder.dtype(c.inputs[0]))};
}

ShardRule shard(const Cast&, AxisPlacements in) { return elementwise(in, 1, true); }

Cost cost(const Cast&, Specs in, Specs out) { return streaming(0, in, out); }

}  // namespace caravan
