// Rules of what happens to gradients: sums over micro-batches, norm, clipping, AdamW.
#include <algorithm>

#include "runtime/ops/overloads.h"

namespace caravan {

TensorSpecs infer(const Accumulate&, Specs in, int) {
  expect_count("accumulate", in, 3);
  expect(in[0] == in[1] && in[2].shape.empty(), "accumulate", in,
         "sum and value must be alike, keep a scalar");
  expect_f32("accumulate", in, {0, 1, 2});
  return {in[0]};
}

Gradients backward(const Accumulate&, const BackwardContext&) { not_differentiable("accumulate"); }

// The sum stays as it was declared; the value comes to it. ZeRO 2 is a sum that is sharded.
ShardRule shard(const Accumulate&, AxisPlacements in) {
  return {{in[0], in[0], kReplicate}, {in[0]}};
}

Cost cost(const Accumulate&, Specs in, Specs out) {
  return streaming(static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const SquaredNorm&, Specs in, int) {
  expect(!in.empty(), "squared_norm", in, "needs a value");
  for (size_t i = 0; i < in.size(); ++i) expect_f32("squared_norm", in, {i});
  return {{{}, DType::f32}};
}

Gradients backward(const SquaredNorm&, const BackwardContext&) {
  not_differentiable("squared_norm");
}

// Squares of shards add up to a partial sum. Beside shards a replicated value must count once:
// every rank takes its slice of it, which moves nothing.
ShardRule shard(const SquaredNorm&, AxisPlacements in) {
  const auto is_shard = [](AxisPlacement p) { return p.kind == AxisPlacement::Kind::shard; };
  if (std::ranges::none_of(in, is_shard)) return all_replicated(in.size(), 1);
  std::vector<AxisPlacement> needed;
  for (const AxisPlacement placement : in) {
    needed.push_back(is_shard(placement) ? placement : shard(0));
  }
  return {needed, {kPartial}};
}

Cost cost(const SquaredNorm&, Specs in, Specs out) {
  double flops = 0;
  for (const TensorSpec& spec : in) flops += 2.0 * static_cast<double>(num_elements(spec.shape));
  return streaming(flops, in, out);
}

TensorSpecs infer(const ClipScale&, Specs in, int) {
  expect_count("clip_scale", in, 3);
  const bool scalars = in[0].shape.empty() && in[1].shape.empty() && in[2].shape.empty();
  expect(scalars, "clip_scale", in, "needs three scalars");
  return {in[0], in[0]};
}

Gradients backward(const ClipScale&, const BackwardContext&) { not_differentiable("clip_scale"); }

ShardRule shard(const ClipScale&, AxisPlacements) { return all_replicated(3, 2); }

Cost cost(const ClipScale&, Specs in, Specs out) { return streaming(4, in, out); }

TensorSpecs infer(const AdamW&, Specs in, int) {
  expect_count("adamw", in, 7);
  for (int i = 1; i < 4; ++i) expect(in[i].shape == in[0].shape, "adamw", in, "the shapes differ");
  for (int i = 4; i < 7; ++i) {
    expect(in[i].shape.empty(), "adamw", in, "scale, learning_rate and step must be scalars");
  }
  expect_f32("adamw", in, {0, 1, 2, 3, 4, 5, 6});
  return {in[0], in[2], in[3]};
}

Gradients backward(const AdamW&, const BackwardContext&) { not_differentiable("adamw"); }

// Everything follows the moments: placed like the parameter, or sharded (ZeRO).
ShardRule shard(const AdamW&, AxisPlacements in) {
  const AxisPlacement moments = in[2];
  return {{moments, moments, moments, moments, kReplicate, kReplicate, kReplicate},
          std::vector(3, moments)};
}

Cost cost(const AdamW&, Specs in, Specs out) {
  return streaming(12.0 * static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const UpdateRouterBias&, Specs in, int) {
  expect_count("update_router_bias", in, 3);
  expect(in[0].shape.size() == 1 && in[1] == in[0] && in[2].shape.empty(), "update_router_bias", in,
         "bias and load must be (E), scale a scalar");
  return {in[0]};
}

Gradients backward(const UpdateRouterBias&, const BackwardContext&) {
  not_differentiable("update_router_bias");
}

ShardRule shard(const UpdateRouterBias&, AxisPlacements) { return all_replicated(3, 1); }

Cost cost(const UpdateRouterBias&, Specs in, Specs out) { return streaming(0, in, out); }

}  // namespace caravan
