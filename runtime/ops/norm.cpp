// Rules of RMSNorm (Zhang & Sennrich, "Root mean square layer normalization").
#include "runtime/ops/overloads.h"

namespace caravan {

TensorSpecs infer(const RmsNorm&, Specs in, int) {
  expect_count("rms_norm", in, 2);
  expect(in[0].shape.size() == 2 && in[1].shape == Shape{in[0].shape[1]}, "rms_norm", in,
         "x must be (T,D), weight (D)");
  expect_one_type("rms_norm", in, {0});
  expect_f32("rms_norm", in, {1});
  return {in[0], {{in[0].shape[0]}, DType::f32}};
}

Gradients backward(const RmsNorm&, const BackwardContext& c) {
  const Val rstd = c.outputs[1], dy = c.output_gradients[0];
  return c.builder.emit(RmsNormGrad{}, {c.inputs[0], c.inputs[1], rstd, dy});
}

ShardRule shard(const RmsNorm&, AxisPlacements in) {
  if (in[0] == shard(0)) return {{shard(0), kReplicate}, {shard(0), shard(0)}};
  return all_replicated(2, 2);
}

Cost cost(const RmsNorm&, Specs in, Specs out) {
  return streaming(4.0 * static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const RmsNormGrad& op, Specs in, int) {
  expect_count("rms_norm_grad", in, 4 + num_addends(op.addend));
  expect(in[3].shape == in[0].shape && in[2].shape == Shape{in[0].shape[0]}, "rms_norm_grad", in,
         "x and dy must be (T,D), weight (D), rstd (T)");
  expect_one_type("rms_norm_grad", in, {0, 3});
  expect_f32("rms_norm_grad", in, {1, 2});
  return expect_addend("rms_norm_grad", op.addend, in, {in[0], in[1]});
}

Gradients backward(const RmsNormGrad&, const BackwardContext&) {
  not_differentiable("rms_norm_grad");
}

ShardRule shard(const RmsNormGrad& op, AxisPlacements in) {
  if (op.addend != Addend::none) return all_replicated(5, 2);
  if (in[0] == shard(0) || in[3] == shard(0)) {
    return {{shard(0), kReplicate, shard(0), shard(0)}, {shard(0), kPartial}};
  }
  return all_replicated(4, 2);
}

Cost cost(const RmsNormGrad&, Specs in, Specs out) {
  return streaming(10.0 * static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const HeadNorm& op, Specs in, int) {
  expect_count("head_norm", in, 1);
  expect(in[0].shape.size() == 2 && in[0].shape[1] % op.head_dim == 0, "head_norm", in,
         "x must be (T,n*h)");
  expect_one_type("head_norm", in, {0});
  return {in[0], {{in[0].shape[0], in[0].shape[1] / op.head_dim}, DType::f32}};
}

Gradients backward(const HeadNorm& op, const BackwardContext& c) {
  return {
      c.builder.one(HeadNormGrad{op.head_dim}, {c.inputs[0], c.outputs[1], c.output_gradients[0]})};
}

ShardRule shard(const HeadNorm&, AxisPlacements in) { return elementwise(in, 2, false); }

Cost cost(const HeadNorm&, Specs in, Specs out) {
  return streaming(4.0 * static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const HeadNormGrad& op, Specs in, int) {
  expect_count("head_norm_grad", in, 3);
  expect(in[0].shape.size() == 2 && in[2].shape == in[0].shape &&
             in[1].shape == Shape{in[0].shape[0], in[0].shape[1] / op.head_dim},
         "head_norm_grad", in, "x and dy must be (T,n*h), rstd (T,n)");
  expect_one_type("head_norm_grad", in, {0, 2});
  expect_f32("head_norm_grad", in, {1});
  return {in[0]};
}

Gradients backward(const HeadNormGrad&, const BackwardContext&) {
  not_differentiable("head_norm_grad");
}

ShardRule shard(const HeadNormGrad&, AxisPlacements in) { return elementwise(in, 1, false); }

Cost cost(const HeadNormGrad&, Specs in, Specs out) {
  return streaming(8.0 * static_cast<double>(num_elements(in[0].shape)), in, out);
}

}  // namespace caravan
