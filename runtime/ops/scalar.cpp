// Rules of scalars.
#include "runtime/ops/overloads.h"

namespace caravan {

TensorSpecs infer(const Fill&, Specs in, int) {
  expect_count("fill", in, 0);
  return {{{}, DType::f32}};
}

Gradients backward(const Fill&, const BackwardContext&) { return {}; }

ShardRule shard(const Fill&, AxisPlacements) { return all_replicated(0, 1); }

Cost cost(const Fill&, Specs in, Specs out) { return streaming(0, in, out); }

TensorSpecs infer(const Divide&, Specs in, int) {
  expect_count("divide", in, 2);
  expect(in[0].shape.empty() && in[1].shape.empty(), "divide", in, "needs two scalars");
  return {in[0]};
}

Gradients backward(const Divide&, const BackwardContext&) { not_differentiable("divide"); }

ShardRule shard(const Divide&, AxisPlacements) { return all_replicated(2, 1); }

Cost cost(const Divide&, Specs in, Specs out) { return streaming(1, in, out); }

}  // namespace caravan
