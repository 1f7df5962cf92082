// Rules of the loss, fused with the output projection.
#include "runtime/ops/overloads.h"

namespace caravan {
namespace {

void expect_projection(std::string_view op, Specs in) {
  const Shape& x = in[0].shape;
  expect(x.size() == 2 && in[1].shape.size() == 2 && in[1].shape[1] == x[1], op, in,
         "x must be (T,D), weight (V,D)");
  expect(in[2].shape == Shape{x[0]} && in[2].dtype == DType::i32, op, in,
         "targets must be (T) i32");
  expect_one_type(op, in, {0, 1});
}

double projection_flops(Specs in) {
  return 2.0 * static_cast<double>(num_elements(in[0].shape)) * static_cast<double>(in[1].shape[0]);
}

}  // namespace

TensorSpecs infer(const LinearCrossEntropy&, Specs in, int) {
  expect_count("linear_cross_entropy", in, 3);
  expect_projection("linear_cross_entropy", in);
  return {{{}, DType::f32}, {{}, DType::f32}};
}

Gradients backward(const LinearCrossEntropy&, const BackwardContext& c) {
  const std::vector<Val> made = c.builder.emit(
      LinearCrossEntropyGrad{}, {c.inputs[0], c.inputs[1], c.inputs[2], c.output_gradients[0]});
  return {made[2], made[3], ValueId::none};
}

// Sums over tokens: partial where the tokens are sharded, whatever the number of valid ones. Where
// the vocabulary is, expand_loss makes the sums whole on every rank.
ShardRule shard(const LinearCrossEntropy&, AxisPlacements in) {
  if (in[1] == shard(0)) {
    return {{kReplicate, shard(0), kReplicate}, {kReplicate, kReplicate}};
  }
  if (in[0] == shard(0) || in[2] == shard(0)) {
    return {{shard(0), kReplicate, shard(0)}, {kPartial, kPartial}};
  }
  return all_replicated(3, 2);
}

Cost cost(const LinearCrossEntropy&, Specs in, Specs out) {
  return streaming(projection_flops(in), in, out);
}

TensorSpecs infer(const LinearCrossEntropyGrad&, Specs in, int) {
  expect_count("linear_cross_entropy_grad", in, 4);
  expect_projection("linear_cross_entropy_grad", in);
  expect(in[3].shape.empty(), "linear_cross_entropy_grad", in, "dloss_sum must be a scalar");
  expect_f32("linear_cross_entropy_grad", in, {3});
  return {{{}, DType::f32}, {{}, DType::f32}, in[0], as_f32(in[1])};
}

Gradients backward(const LinearCrossEntropyGrad&, const BackwardContext&) {
  not_differentiable("linear_cross_entropy_grad");
}

ShardRule shard(const LinearCrossEntropyGrad&, AxisPlacements in) {
  if (in[1] == shard(0)) {
    return {{kReplicate, shard(0), kReplicate, kReplicate},
            {kReplicate, kReplicate, kPartial, shard(0)}};
  }
  if (in[0] == shard(0) || in[2] == shard(0)) {
    return {{shard(0), kReplicate, shard(0), kReplicate}, {kPartial, kPartial, shard(0), kPartial}};
  }
  return all_replicated(4, 4);
}

Cost cost(const LinearCrossEntropyGrad&, Specs in, Specs out) {
  return streaming(3.0 * projection_flops(in), in, out);  // logits, dx, dweight
}

// --- where ranks share the vocabulary ------------------------------------------------------------

TensorSpecs infer(const CrossEntropyPart&, Specs in, int) {
  expect_count("cross_entropy_part", in, 3);
  expect_projection("cross_entropy_part", in);
  return {{{1, 2, in[0].shape[0]}, DType::f32}};
}

Gradients backward(const CrossEntropyPart&, const BackwardContext&) {
  not_differentiable("cross_entropy_part");
}

ShardRule shard(const CrossEntropyPart&, AxisPlacements) {
  return placed_already("cross_entropy_part");
}

Cost cost(const CrossEntropyPart&, Specs in, Specs out) {
  return streaming(projection_flops(in), in, out);
}

TensorSpecs infer(const MergeCrossEntropy&, Specs in, int) {
  expect_count("merge_cross_entropy", in, 2);
  expect(in[0].shape.size() == 3 && in[0].shape[1] == 2, "merge_cross_entropy", in,
         "parts must be (P,2,T)");
  expect(in[1].shape == Shape{in[0].shape[2]} && in[1].dtype == DType::i32, "merge_cross_entropy",
         in, "targets must be (T) i32");
  expect_f32("merge_cross_entropy", in, {0});
  return {{in[1].shape, DType::f32}, {{}, DType::f32}, {{}, DType::f32}};
}

Gradients backward(const MergeCrossEntropy&, const BackwardContext&) {
  not_differentiable("merge_cross_entropy");
}

ShardRule shard(const MergeCrossEntropy&, AxisPlacements) {
  return placed_already("merge_cross_entropy");
}

Cost cost(const MergeCrossEntropy&, Specs in, Specs out) {
  return streaming(4.0 * static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const CrossEntropyPartGrad&, Specs in, int) {
  expect_count("cross_entropy_part_grad", in, 5);
  expect_projection("cross_entropy_part_grad", in);
  expect(in[3] == TensorSpec{{in[0].shape[0]}, DType::f32} && in[4].shape.empty(),
         "cross_entropy_part_grad", in, "lse must be (T), dloss_sum a scalar");
  expect_f32("cross_entropy_part_grad", in, {4});
  return {in[0], as_f32(in[1])};
}

Gradients backward(const CrossEntropyPartGrad&, const BackwardContext&) {
  not_differentiable("cross_entropy_part_grad");
}

ShardRule shard(const CrossEntropyPartGrad&, AxisPlacements) {
  return placed_already("cross_entropy_part_grad");
}

Cost cost(const CrossEntropyPartGrad&, Specs in, Specs out) {
  return streaming(3.0 * projection_flops(in), in, out);  // logits again, dx, dweight
}

}  // namespace caravan
