// Rules of element-wise ops: SwiGLU (Shazeer, "GLU variants improve transformer") and add.
#include "runtime/ops/overloads.h"

namespace caravan {
namespace {

void expect_alike(std::string_view op, Specs in, size_t count) {
  expect_count(op, in, count);
  for (const TensorSpec& spec : in) expect(spec == in[0], op, in, "the shapes differ");
  expect_one_type(op, in, {0});
}

}  // namespace

TensorSpecs infer(const SwiGlu&, Specs in, int) {
  expect_alike("swiglu", in, 2);
  return {in[0]};
}

Gradients backward(const SwiGlu&, const BackwardContext& c) {
  return c.builder.emit(SwiGluGrad{}, {c.inputs[0], c.inputs[1], c.output_gradients[0]});
}

ShardRule shard(const SwiGlu&, AxisPlacements in) { return elementwise(in, 1, false); }

Cost cost(const SwiGlu&, Specs in, Specs out) { return streaming(6 * elements(in[0]), in, out); }

TensorSpecs infer(const SwiGluGrad&, Specs in, int) {
  expect_alike("swiglu_grad", in, 3);
  return {in[0], in[1]};
}

Gradients backward(const SwiGluGrad&, const BackwardContext&) { not_differentiable("swiglu_grad"); }

ShardRule shard(const SwiGluGrad&, AxisPlacements in) { return elementwise(in, 2, false); }

Cost cost(const SwiGluGrad&, Specs in, Specs out) {
  return streaming(12 * elements(in[0]), in, out);
}

TensorSpecs infer(const Add&, Specs in, int) {
  expect_alike("add", in, 2);
  return {in[0]};
}

Gradients backward(const Add&, const BackwardContext& c) {
  return {c.output_gradients[0], c.output_gradients[0]};
}

ShardRule shard(const Add&, AxisPlacements in) { return elementwise(in, 1, true); }

Cost cost(const Add&, Specs in, Specs out) { return streaming(elements(in[0]), in, out); }

}  // namespace caravan
