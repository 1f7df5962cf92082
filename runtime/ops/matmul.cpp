// Rules of matmul and of what surrounds it: biases.
#include "runtime/ops/overloads.h"

namespace caravan {
namespace {

// The stored dims of an operand that are contracted (K) and kept (M of a, N of b).
int contracted_a(const MatMul& op) { return op.transpose_a ? 0 : 1; }
int contracted_b(const MatMul& op) { return op.transpose_b ? 1 : 0; }

int64_t size_at(const TensorSpec& spec, int dim) { return spec.shape[static_cast<size_t>(dim)]; }

}  // namespace

TensorSpecs infer(const MatMul& op, Specs in, int) {
  expect_count("matmul", in, 2 + num_addends(op.addend));
  expect(in[0].shape.size() == 2 && in[1].shape.size() == 2, "matmul", in, "needs two matrices");
  expect(size_at(in[0], contracted_a(op)) == size_at(in[1], contracted_b(op)), "matmul", in,
         "the contracted dims differ");
  expect_one_type("matmul", in, {0, 1});
  return expect_addend(
      "matmul", op.addend, in,
      {{{size_at(in[0], 1 - contracted_a(op)), size_at(in[1], 1 - contracted_b(op))},
        op.f32_output ? DType::f32 : in[0].dtype}});
}

// With A' = op(a), B' = op(b) and C = A'B':  dA' = dC B'^T,  dB' = A'^T dC. A transposed operand
// wants the transpose of that, which is the other order of the product. b is a weight, or what was
// cast from one: dB is f32.
Gradients backward(const MatMul& op, const BackwardContext& c) {
  if (op.addend != Addend::none) return not_differentiable("matmul with an addend");
  Builder& builder = c.builder;
  const Val a = c.inputs[0], b = c.inputs[1];
  const Val dc = builder.cast(c.output_gradients[0], builder.dtype(a));
  const Val da = op.transpose_a ? builder.matmul(b, dc, {op.transpose_b, true})     // B' dC^T
                                : builder.matmul(dc, b, {false, !op.transpose_b});  // dC B'^T
  const auto f32_product = [&](Val left, Val right, bool transpose_left, bool transpose_right) {
    MatMul product{transpose_left, transpose_right};
    product.f32_output = builder.dtype(a) != DType::f32;
    return builder.matmul(left, right, product);
  };
  const Val db = op.transpose_b ? f32_product(dc, a, true, op.transpose_a)     // dC^T A'
                                : f32_product(a, dc, !op.transpose_a, false);  // A'^T dC
  return {da, db};
}

ShardRule shard(const MatMul& op, AxisPlacements in) {
  if (op.addend != Addend::none) return all_replicated(3, 1);
  const AxisPlacement rows = shard(1 - contracted_a(op));     // M
  const AxisPlacement inner_a = shard(contracted_a(op));      // K
  const AxisPlacement inner_b = shard(contracted_b(op));      // K
  const AxisPlacement columns = shard(1 - contracted_b(op));  // N
  if (in[0] == inner_a && in[1] == inner_b) return {{inner_a, inner_b}, {kPartial}};
  // b is the weight, whose columns stay where they are: sharded tokens are gathered.
  const bool moves_a = in[0] == rows || in[0] == inner_a;
  if (in[1] == columns && moves_a) return {{kReplicate, columns}, {shard(1)}};
  if (in[0] == rows) return {{rows, kReplicate}, {shard(0)}};
  if (in[0] == inner_a || in[1] == inner_b) return {{inner_a, inner_b}, {kPartial}};
  if (in[1] == columns) return {{kReplicate, columns}, {shard(1)}};
  if (in[0] == kPartial && in[1] == kReplicate) return {{kPartial, kReplicate}, {kPartial}};
  return all_replicated(2, 1);
}

Cost cost(const MatMul& op, Specs in, Specs out) {
  const double inner = static_cast<double>(size_at(in[0], contracted_a(op)));
  return streaming(2.0 * inner * static_cast<double>(num_elements(out[0].shape)), in, out);
}

TensorSpecs infer(const AddBias&, Specs in, int) {
  expect_count("add_bias", in, 2);
  expect(in[0].shape.size() == 2 && in[1].shape == Shape{in[0].shape[1]}, "add_bias", in,
         "x must be (T,N), bias (N)");
  expect_one_type("add_bias", in, {0});
  expect_f32("add_bias", in, {1});
  return {in[0]};
}

Gradients backward(const AddBias&, const BackwardContext& c) {
  const Val dy = c.output_gradients[0];
  return {dy, c.builder.one(SumRows{}, {dy})};
}

ShardRule shard(const AddBias&, AxisPlacements in) {
  if (in[0] == shard(0)) return {{shard(0), kReplicate}, {shard(0)}};
  if (in[0] == shard(1) || in[1] == shard(0)) return {{shard(1), shard(0)}, {shard(1)}};
  return all_replicated(2, 1);
}

Cost cost(const AddBias&, Specs in, Specs out) {
  return streaming(static_cast<double>(num_elements(out[0].shape)), in, out);
}

TensorSpecs infer(const SumRows&, Specs in, int) {
  expect_count("sum_rows", in, 1);
  expect(in[0].shape.size() == 2, "sum_rows", in, "needs a matrix");
  expect_one_type("sum_rows", in, {0});
  return {{{in[0].shape[1]}, DType::f32}};
}

Gradients backward(const SumRows&, const BackwardContext&) { not_differentiable("sum_rows"); }

ShardRule shard(const SumRows&, AxisPlacements in) {
  if (in[0] == shard(0)) return {{shard(0)}, {kPartial}};
  if (in[0] == shard(1)) return {{shard(1)}, {shard(0)}};
  if (in[0] == kPartial) return {{kPartial}, {kPartial}};
  return all_replicated(1, 1);
}

Cost cost(const SumRows&, Specs in, Specs out) {
  return streaming(static_cast<double>(num_elements(in[0].shape)), in, out);
}

}  // namespace caravan
