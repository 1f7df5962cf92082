// Rules of mixtures of experts (Shazeer et al., "Outrageously large neural networks"; the score
// multiplies the input of an expert, as in Llama 4).
#include "runtime/ops/overloads.h"

namespace caravan {
namespace {

constexpr AxisPlacement kRows = shard(0);

void expect_slots(std::string_view op, Specs in, const Slots& slots, int64_t num_tokens) {
  expect(slots.sequence_len > 0 && slots.per_sequence > 0 && num_tokens % slots.sequence_len == 0,
         op, in, "slots need whole sequences, and at least one row for each");
}

// x (T,D), scores (T,k), gate, up (E,D,F), down (E,F,D)
void expect_experts(std::string_view op, Specs in, const TensorSpec& gate, const TensorSpec& up,
                    const TensorSpec& down) {
  expect(in[0].shape.size() == 2 && in[1].shape.size() == 2 && in[1].shape[0] == in[0].shape[0], op,
         in, "x must be (T,D), scores (T,k)");
  const bool fits = gate.shape.size() == 3 && gate.shape[1] == in[0].shape[1];
  expect(fits && up == gate && down.shape == Shape{gate.shape[0], gate.shape[2], gate.shape[1]}, op,
         in, "gate and up must be (E,D,F), down (E,F,D)");
  expect(in[0].dtype != DType::i32 && gate.dtype == in[0].dtype && down.dtype == in[0].dtype, op,
         in, "x and the weights must be of one type, f32 or bf16");
  expect_f32(op, in, {1});
}

// Rows that a rank has for a pass, and what the sorted picks say.
void expect_sorted(std::string_view op, Specs in, size_t order) {
  expect(in[order].shape.size() == 1 && in[order].dtype == DType::i32 &&
             in[order + 1].shape.size() == 1 && in[order + 1].dtype == DType::i32 &&
             in[order + 2].shape.empty(),
         op, in, "order and ends must be i32 vectors, pass a scalar");
}

}  // namespace

// --- route ---------------------------------------------------------------------------------------

TensorSpecs infer(const Route& op, Specs in, int) {
  expect(in.size() == 1 || in.size() == 2, "route", in, "needs logits, and at most a bias");
  expect(in[0].shape.size() == 2 && op.top_k >= 1 && op.top_k <= in[0].shape[1], "route", in,
         "logits must be (T,E), and k at most E");
  expect(in.size() == 1 || in[1].shape == Shape{in[0].shape[1]}, "route", in, "bias must be (E)");
  for (size_t i = 0; i < in.size(); ++i) expect_f32("route", in, {i});
  const Shape picks = {in[0].shape[0], op.top_k};
  return {{picks, DType::f32}, {picks, DType::i32}, {{in[0].shape[1]}, DType::f32}};
}

Gradients backward(const Route& op, const BackwardContext& c) {
  const RouteGrad grad{op.aux_loss_coef, op.z_loss_coef, op.sequence_len};
  Gradients gradients(c.inputs.size(), ValueId::none);
  gradients[0] = c.builder.one(grad, {c.inputs[0], c.outputs[1], c.output_gradients[0]});
  return gradients;
}

ShardRule shard(const Route&, AxisPlacements in) {
  if (in[0] != kRows) return all_replicated(in.size(), 3);
  std::vector<AxisPlacement> inputs(in.size(), kReplicate);
  inputs[0] = kRows;
  return {inputs, {kRows, kRows, kPartial}};
}

Cost cost(const Route& op, Specs in, Specs out) {
  return streaming(static_cast<double>(op.top_k) * elements(in[0]), in, out);
}

TensorSpecs infer(const RouteGrad& op, Specs in, int) {
  expect_count("route_grad", in, 3);
  expect(in[0].shape.size() == 2 && in[1].shape.size() == 2 && in[1].dtype == DType::i32 &&
             in[2].shape == in[1].shape && in[1].shape[0] == in[0].shape[0],
         "route_grad", in, "logits must be (T,E), experts (T,k) i32, dscores (T,k)");
  expect_f32("route_grad", in, {0, 2});
  expect(op.aux_loss_coef == 0 || in[0].shape[0] % op.sequence_len == 0, "route_grad", in,
         "the balance loss needs whole sequences");
  return {in[0]};
}

Gradients backward(const RouteGrad&, const BackwardContext&) { not_differentiable("route_grad"); }

ShardRule shard(const RouteGrad&, AxisPlacements in) {
  const bool by_token = in[0] == kRows || in[1] == kRows || in[2] == kRows;
  return by_token ? ShardRule{{kRows, kRows, kRows}, {kRows}} : all_replicated(3, 1);
}

Cost cost(const RouteGrad&, Specs in, Specs out) { return streaming(8 * elements(in[0]), in, out); }

// --- experts -------------------------------------------------------------------------------------

TensorSpecs infer(const Experts& op, Specs in, int) {
  expect_count("experts", in, 6);
  expect_experts("experts", in, in[3], in[4], in[5]);
  expect(in[2].shape == in[1].shape && in[2].dtype == DType::i32, "experts", in,
         "experts must be (T,k) i32");
  expect_slots("experts", in, op.slots, in[0].shape[0]);
  const int64_t rows = num_rows(op.slots, in[0].shape[0]);
  const Shape wide = {rows, in[3].shape[2]};
  const TensorSpec scalar{{}, DType::f32};
  return {in[0],
          scalar,
          scalar,
          {{num_elements(in[1].shape)}, DType::i32},
          {{op.num_experts}, DType::i32},
          {{rows, in[0].shape[1]}, in[0].dtype},
          {{op.num_experts}, DType::i32},
          {wide, in[0].dtype},
          {wide, in[0].dtype}};
}

Gradients backward(const Experts& op, const BackwardContext& c) {
  const auto& in = c.inputs;
  const auto& out = c.outputs;
  const Gradients made = c.builder.emit(
      ExpertsGrad{op.slots}, {in[0], in[1], in[3], in[4], in[5], out[2], out[3], out[4], out[5],
                              out[6], out[7], out[8], c.output_gradients[0]});
  return {made[0], made[1], ValueId::none, made[2], made[3], made[4]};
}

namespace {

// How weights lie where tokens are sharded: whole, or dealt out, and then tokens travel.
AxisPlacement beside_tokens(AxisPlacement gate, AxisPlacement up, AxisPlacement down) {
  return gate == kRows || up == kRows || down == kRows ? kRows : kReplicate;
}

// Weights split inside each expert: every rank has a part of its width.
bool splits_width(AxisPlacement gate, AxisPlacement up, AxisPlacement down) {
  return gate == shard(2) || up == shard(2) || down == shard(1);
}

}  // namespace

// What a rank counts and sorts is of its own tokens: shards, or parts of sums.
ShardRule shard(const Experts&, AxisPlacements in) {
  const AxisPlacement all = kReplicate;
  if (splits_width(in[3], in[4], in[5])) {
    return {{all, all, all, shard(2), shard(2), shard(1)},
            {kPartial, all, all, all, all, all, all, shard(1), shard(1)}};
  }
  if (in[0] == kRows || in[1] == kRows || in[2] == kRows) {
    const AxisPlacement weights = beside_tokens(in[3], in[4], in[5]);
    return {{kRows, kRows, kRows, weights, weights, weights},
            {kRows, kPartial, kPartial, kRows, kPartial, kRows, kPartial, kRows, kRows}};
  }
  return all_replicated(6, 9);
}

Cost cost(const Experts&, Specs in, Specs out) {
  return streaming(6.0 * elements(in[1]) * elements(in[3]) / static_cast<double>(in[3].shape[0]),
                   in, out);
}

TensorSpecs infer(const ExpertsGrad&, Specs in, int) {
  expect_count("experts_grad", in, 13);
  expect_experts("experts_grad", in, in[2], in[3], in[4]);
  expect(in[12] == in[0], "experts_grad", in, "dout must be like x");
  expect_one_type("experts_grad", in, {0, 8, 10, 11});
  return {in[0], in[1], as_f32(in[2]), as_f32(in[3]), as_f32(in[4])};
}

Gradients backward(const ExpertsGrad&, const BackwardContext&) {
  not_differentiable("experts_grad");
}

ShardRule shard(const ExpertsGrad&, AxisPlacements in) {
  const AxisPlacement all = kReplicate;
  if (splits_width(in[2], in[3], in[4])) {
    return {
        {all, all, shard(2), shard(2), shard(1), all, all, all, all, all, shard(1), shard(1), all},
        {kPartial, kPartial, shard(2), shard(2), shard(1)}};
  }
  if (in[0] == kRows || in[12] == kRows) {
    const AxisPlacement weights = beside_tokens(in[2], in[3], in[4]);
    const AxisPlacement gradients = weights == kRows ? kRows : kPartial;
    return {{kRows, kRows, weights, weights, weights, kPartial, kRows, kPartial, kRows, kPartial,
             kRows, kRows, kRows},
            {kRows, kRows, gradients, gradients, gradients}};
  }
  return all_replicated(13, 5);
}

Cost cost(const ExpertsGrad&, Specs in, Specs out) {
  return streaming(12.0 * elements(in[1]) * elements(in[2]) / static_cast<double>(in[2].shape[0]),
                   in, out);
}

// --- what experts become -------------------------------------------------------------------------

TensorSpecs infer(const Assign& op, Specs in, int) {
  expect_count("assign", in, 1);
  expect(in[0].shape.size() == 2 && in[0].dtype == DType::i32, "assign", in,
         "experts must be (T,k) i32");
  expect_slots("assign", in, op.slots, in[0].shape[0]);
  const TensorSpec scalar{{}, DType::f32};
  return {
      {{num_elements(in[0].shape)}, DType::i32}, {{op.num_experts}, DType::i32}, scalar, scalar};
}
Gradients backward(const Assign&, const BackwardContext&) { not_differentiable("assign"); }
ShardRule shard(const Assign&, AxisPlacements) { return placed_already("assign"); }
Cost cost(const Assign&, Specs in, Specs out) { return streaming(0, in, out); }

TensorSpecs infer(const Dispatch& op, Specs in, int) {
  expect_count("dispatch", in, 5);
  expect_sorted("dispatch", in, 2);
  expect_slots("dispatch", in, op.slots, in[0].shape[0]);
  expect_one_type("dispatch", in, {0});
  expect_f32("dispatch", in, {1});
  return {{{num_rows(op.slots, in[0].shape[0]), in[0].shape[1]}, in[0].dtype}, in[3]};
}
Gradients backward(const Dispatch&, const BackwardContext&) { not_differentiable("dispatch"); }
ShardRule shard(const Dispatch&, AxisPlacements) { return placed_already("dispatch"); }
Cost cost(const Dispatch&, Specs in, Specs out) { return streaming(elements(out[0]), in, out); }

TensorSpecs infer(const DispatchGrad& op, Specs in, int) {
  expect_count("dispatch_grad", in, op.adds_in_place ? 8 : 6);
  expect_sorted("dispatch_grad", in, 2);
  expect(in[5].shape.size() == 2 && in[5].shape[1] == in[0].shape[1], "dispatch_grad", in,
         "drows must be (S,D)");
  expect_one_type("dispatch_grad", in, {0, 5});
  expect_f32("dispatch_grad", in, {1});
  expect(!op.adds_in_place || (in[6] == in[0] && in[7] == in[1]), "dispatch_grad", in,
         "what it adds to must be like x and scores");
  return {in[0], in[1]};
}
Gradients backward(const DispatchGrad&, const BackwardContext&) {
  not_differentiable("dispatch_grad");
}
ShardRule shard(const DispatchGrad&, AxisPlacements) { return placed_already("dispatch_grad"); }
Cost cost(const DispatchGrad&, Specs in, Specs out) {
  return streaming(3 * elements(in[5]), in, out);
}

TensorSpecs infer(const Combine& op, Specs in, int) {
  expect_count("combine", in, 4 + num_addends(op.addend));
  expect_sorted("combine", in, 1);
  expect(in[0].shape.size() == 2 && in[1].shape[0] % op.top_k == 0, "combine", in,
         "rows must be (S,D), order k for each token");
  expect_one_type("combine", in, {0});
  return expect_addend("combine", op.addend, in,
                       {{{in[1].shape[0] / op.top_k, in[0].shape[1]}, in[0].dtype}});
}
Gradients backward(const Combine&, const BackwardContext&) { not_differentiable("combine"); }
ShardRule shard(const Combine&, AxisPlacements) { return placed_already("combine"); }
Cost cost(const Combine&, Specs in, Specs out) { return streaming(elements(in[0]), in, out); }

TensorSpecs infer(const GroupedMatMul& op, Specs in, int) {
  expect_count("grouped_matmul", in, 3 + num_addends(op.addend));
  const size_t inner = op.transpose_b ? 2 : 1;
  expect(in[0].shape.size() == 2 && in[1].shape.size() == 3 && in[1].shape[inner] == in[0].shape[1],
         "grouped_matmul", in, "rows must be (S,K), weights (E,K,N)");
  expect(
      in[2].shape.size() == 1 && in[2].dtype == DType::i32 && in[2].shape[0] % in[1].shape[0] == 0,
      "grouped_matmul", in, "counts must be i32, E for each rank");
  expect_one_type("grouped_matmul", in, {0, 1});
  return expect_addend("grouped_matmul", op.addend, in,
                       {{{in[0].shape[0], in[1].shape[3 - inner]}, in[0].dtype}});
}
Gradients backward(const GroupedMatMul&, const BackwardContext&) {
  not_differentiable("grouped_matmul");
}
ShardRule shard(const GroupedMatMul&, AxisPlacements) { return placed_already("grouped_matmul"); }
Cost cost(const GroupedMatMul& op, Specs in, Specs out) {
  const int64_t width = in[1].shape[op.transpose_b ? 1 : 2];
  return streaming(2.0 * elements(in[0]) * static_cast<double>(width), in, out);
}

TensorSpecs infer(const GroupedMatMulGrad& op, Specs in, int) {
  expect_count("grouped_matmul_grad", in, 3 + num_addends(op.addend));
  expect(in[0].shape.size() == 2 && in[1].shape.size() == 2 && in[0].shape[0] == in[1].shape[0],
         "grouped_matmul_grad", in, "rows must be (S,K), dy (S,N)");
  expect(in[2].shape.size() == 1 && in[2].shape[0] % op.num_experts == 0, "grouped_matmul_grad", in,
         "counts must be E for each rank");
  expect_one_type("grouped_matmul_grad", in, {0, 1});
  return expect_addend("grouped_matmul_grad", op.addend, in,
                       {{{op.num_experts, in[0].shape[1], in[1].shape[1]}, DType::f32}});
}
Gradients backward(const GroupedMatMulGrad&, const BackwardContext&) {
  not_differentiable("grouped_matmul_grad");
}
ShardRule shard(const GroupedMatMulGrad&, AxisPlacements) {
  return placed_already("grouped_matmul_grad");
}
Cost cost(const GroupedMatMulGrad&, Specs in, Specs out) {
  return streaming(2.0 * elements(in[0]) * static_cast<double>(in[1].shape[1]), in, out);
}

}  // namespace caravan
