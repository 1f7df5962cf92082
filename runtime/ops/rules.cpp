// Dispatch over the variant, and what the rules of several families share.
#include "runtime/ops/rules.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/error.h"
#include "runtime/ops/overloads.h"

namespace caravan {

TensorSpecs infer(const Op& op, std::span<const TensorSpec> inputs, int axis_size) {
  return std::visit([&](const auto& one) { return infer(one, inputs, axis_size); }, op);
}

std::vector<ValueId> backward(const Op& op, const BackwardContext& context) {
  return std::visit([&](const auto& one) { return backward(one, context); }, op);
}

ShardRule shard(const Op& op, std::span<const AxisPlacement> inputs) {
  return std::visit([&](const auto& one) { return shard(one, inputs); }, op);
}

bool takes_whole_sequences(const Op& op) {
  if (const auto* route = std::get_if<RouteGrad>(&op)) return route->aux_loss_coef != 0;
  return std::holds_alternative<Attention>(op) || std::holds_alternative<AttentionGrad>(op) ||
         std::holds_alternative<Experts>(op) || std::holds_alternative<ExpertsGrad>(op);
}

Cost cost(const Op& op, std::span<const TensorSpec> inputs, std::span<const TensorSpec> outputs) {
  return std::visit([&](const auto& one) { return cost(one, inputs, outputs); }, op);
}

void expect(bool ok, std::string_view op, Specs inputs, std::string_view what) {
  if (ok) return;
  const std::string shapes = absl::StrJoin(inputs, ", ", [](std::string* out, const TensorSpec& s) {
    *out += absl::StrFormat("%s%s", name(s.dtype), to_string(s.shape));
  });
  throw internal_error(absl::StrFormat("[%s] %s: %s", op, shapes, what));
}

void expect_count(std::string_view op, Specs inputs, size_t count) {
  expect(inputs.size() == count, op, inputs, absl::StrFormat("needs %d inputs", count));
}

void expect_f32(std::string_view op, Specs inputs, std::initializer_list<size_t> which) {
  for (const size_t i : which) {
    expect(inputs[i].dtype == DType::f32, op, inputs, absl::StrFormat("input %d must be f32", i));
  }
}

void expect_one_type(std::string_view op, Specs inputs, std::initializer_list<size_t> which) {
  const DType first = inputs[*which.begin()].dtype;
  expect(first != DType::i32, op, inputs, "needs f32 or bf16");
  for (const size_t i : which) expect(inputs[i].dtype == first, op, inputs, "the dtypes differ");
}

TensorSpec as_f32(TensorSpec spec) {
  spec.dtype = DType::f32;
  return spec;
}

TensorSpecs expect_addend(std::string_view op, Addend addend, Specs inputs, TensorSpecs outputs) {
  expect(addend == Addend::none || inputs.back() == outputs[0], op, inputs,
         "the addend must be like the output");
  return outputs;
}

Gradients not_differentiable(std::string_view op) {
  throw internal_error(absl::StrFormat("[%s] has no gradient", op));
}

ShardRule placed_already(std::string_view op) {
  throw internal_error(absl::StrFormat("[%s] is placed already", op));
}

ShardRule all_replicated(size_t num_inputs, size_t num_outputs) {
  return {std::vector(num_inputs, kReplicate), std::vector(num_outputs, kReplicate)};
}

ShardRule elementwise(AxisPlacements inputs, size_t num_outputs, bool linear) {
  AxisPlacement common = kReplicate;
  const auto sharded = std::ranges::find(inputs, AxisPlacement::Kind::shard, &AxisPlacement::kind);
  if (sharded != inputs.end()) {
    common = *sharded;
  } else if (linear && !inputs.empty() &&
             std::ranges::count(inputs, kPartial) == std::ssize(inputs)) {
    common = kPartial;
  }
  return {std::vector(inputs.size(), common), std::vector(num_outputs, common)};
}

Cost streaming(double flops, Specs inputs, Specs outputs) {
  Cost total{.flops = flops};
  for (const Specs specs : {inputs, outputs}) {
    for (const TensorSpec& spec : specs) {
      total.bytes += static_cast<double>(num_elements(spec.shape) * size_bytes(spec.dtype));
    }
  }
  return total;
}

}  // namespace caravan
