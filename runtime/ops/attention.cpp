// Rules of rope (Su et al., "RoFormer") and of attention (Dao et al., "FlashAttention": the
// log-sum-exp of each row is what the gradient needs).
#include "runtime/ops/overloads.h"

namespace caravan {
namespace {

void expect_heads(std::string_view op, Specs in, const auto& attributes) {
  const auto [head_dim, sequence_len, group, whole_sequences] = attributes;
  const Shape& q = in[0].shape;
  const Shape& k = in[1].shape;
  expect(q.size() == 2 && k.size() == 2 && in[2].shape == k && q[0] == k[0], op, in,
         "q must be (T,H*h), k and v (T,KV*h)");
  expect(q[1] % head_dim == 0 && k[1] % head_dim == 0, op, in, "widths must divide by head_dim");
  // Of query heads a rank may have a part while it has all key/value heads.
  const int64_t covered = k[1] * group;
  expect(q[1] <= covered && covered % q[1] == 0, op, in,
         "query heads must be a group for each kv head, or a part of them");
  expect(q[0] % sequence_len == 0, op, in, "tokens must be whole sequences");
  expect(in[3].shape == Shape{q[0]} && in[3].dtype == DType::i32, op, in,
         "document_start must be (T) i32");
  expect_one_type(op, in, {0, 1, 2});
}

// Multiply-adds of one causal T x T product, for all heads.
double causal_flops(const TensorSpec& q, int64_t sequence_len) {
  return static_cast<double>(num_elements(q.shape)) * static_cast<double>(sequence_len);
}

}  // namespace

TensorSpecs infer(const Rope& op, Specs in, int) {
  expect_count("rope", in, 2);
  expect(in[0].shape.size() == 2 && in[0].shape[1] % op.head_dim == 0 && op.head_dim % 2 == 0,
         "rope", in, "x must be (T,n*h) with an even h");
  expect(in[1].shape == Shape{in[0].shape[0]} && in[1].dtype == DType::i32, "rope", in,
         "positions must be (T) i32");
  expect_one_type("rope", in, {0});
  return {in[0]};
}

Gradients backward(const Rope& op, const BackwardContext& c) {
  Rope back = op;
  back.inverse = !op.inverse;
  return {c.builder.rope(c.output_gradients[0], c.inputs[1], back), ValueId::none};
}

ShardRule shard(const Rope&, AxisPlacements in) {
  if (in[0] == shard(0)) return {{shard(0), shard(0)}, {shard(0)}};
  if (in[0] == shard(1)) return {{shard(1), kReplicate}, {shard(1)}};
  if (in[0] == kPartial) return {{kPartial, kReplicate}, {kPartial}};  // it is linear
  return all_replicated(2, 1);
}

Cost cost(const Rope&, Specs in, Specs out) {
  return streaming(3.0 * static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const TemperatureScale&, Specs in, int) {
  expect_count("temperature_scale", in, 2);
  expect(
      in[0].shape.size() == 2 && in[1].shape == Shape{in[0].shape[0]} && in[1].dtype == DType::i32,
      "temperature_scale", in, "x must be (T,N), positions (T) i32");
  expect_one_type("temperature_scale", in, {0});
  return {in[0]};
}

Gradients backward(const TemperatureScale& op, const BackwardContext& c) {
  return {c.builder.temperature_scale(c.output_gradients[0], c.inputs[1], op), ValueId::none};
}

ShardRule shard(const TemperatureScale&, AxisPlacements in) { return shard(Rope{}, in); }

Cost cost(const TemperatureScale&, Specs in, Specs out) {
  return streaming(static_cast<double>(num_elements(in[0].shape)), in, out);
}

TensorSpecs infer(const ChunkStart& op, Specs in, int) {
  expect_count("chunk_start", in, 1);
  expect(in[0].shape.size() == 1 && in[0].dtype == DType::i32 &&
             in[0].shape[0] % op.sequence_len == 0 && op.chunk > 0,
         "chunk_start", in, "document_start must be (T) i32, whole sequences");
  return {in[0]};
}

Gradients backward(const ChunkStart&, const BackwardContext&) { not_differentiable("chunk_start"); }

ShardRule shard(const ChunkStart&, AxisPlacements in) { return elementwise(in, 1, false); }

Cost cost(const ChunkStart&, Specs in, Specs out) { return streaming(0, in, out); }

TensorSpecs infer(const Attention& op, Specs in, int) {
  expect_count("attention", in, 4);
  expect_heads("attention", in, op);
  const Shape& q = in[0].shape;
  return {in[0], {{q[0], q[1] / op.head_dim}, DType::f32}};
}

Gradients backward(const Attention& op, const BackwardContext& c) {
  const AttentionGrad grad{op.head_dim, op.sequence_len, op.group, op.whole_sequences};
  Gradients gradients = c.builder.emit(grad, {c.inputs[0], c.inputs[1], c.inputs[2], c.inputs[3],
                                              c.outputs[0], c.outputs[1], c.output_gradients[0]});
  gradients.push_back(ValueId::none);  // document_start
  return gradients;
}

ShardRule shard(const Attention&, AxisPlacements in) {
  if (in[0] == shard(0)) {  // by sequence
    return {{shard(0), shard(0), shard(0), shard(0)}, {shard(0), shard(0)}};
  }
  if (in[1] == shard(1) || in[2] == shard(1)) {  // by head
    return {{shard(1), shard(1), shard(1), kReplicate}, {shard(1), shard(1)}};
  }
  if (in[0] == shard(1)) {  // by query head
    return {{shard(1), kReplicate, kReplicate, kReplicate}, {shard(1), shard(1)}};
  }
  return all_replicated(4, 2);
}

Cost cost(const Attention& op, Specs in, Specs out) {
  return streaming(2.0 * causal_flops(in[0], op.sequence_len), in, out);
}

TensorSpecs infer(const AttentionGrad& op, Specs in, int) {
  expect_count("attention_grad", in, 7);
  expect_heads("attention_grad", in, op);
  expect(in[4].shape == in[0].shape && in[6].shape == in[0].shape, "attention_grad", in,
         "out and dout must be shaped like q");
  expect_one_type("attention_grad", in, {0, 4, 6});
  expect_f32("attention_grad", in, {5});
  return {in[0], in[1], in[2]};
}

Gradients backward(const AttentionGrad&, const BackwardContext&) {
  not_differentiable("attention_grad");
}

ShardRule shard(const AttentionGrad&, AxisPlacements in) {
  if (in[0] == shard(0)) return {std::vector(7, shard(0)), std::vector(3, shard(0))};
  const bool by_head = in[1] == shard(1) || in[2] == shard(1);
  if (by_head || in[0] == shard(1)) {
    const AxisPlacement keys = by_head ? shard(1) : kReplicate;
    const AxisPlacement sums = by_head ? shard(1) : kPartial;  // over the query heads of each
    return {{shard(1), keys, keys, kReplicate, shard(1), shard(1), shard(1)},
            {shard(1), sums, sums}};
  }
  return all_replicated(7, 3);
}

Cost cost(const AttentionGrad& op, Specs in, Specs out) {
  return streaming(5.0 * causal_flops(in[0], op.sequence_len), in, out);
}

}  // namespace caravan
