// Rules of collectives. They are inserted by parallelize, after autodiff and the placement rules:
// neither asks them anything.
#include "runtime/error.h"
#include "runtime/ops/overloads.h"

namespace caravan {
namespace {

TensorSpec scaled(TensorSpec spec, int dim, int64_t multiply, int64_t divide) {
  int64_t& size = spec.shape[static_cast<size_t>(dim)];
  size = (size * multiply + divide - 1) / divide;
  return spec;
}

void expect_dim(std::string_view op, Specs in, int dim) {
  for (const TensorSpec& spec : in) {
    expect(dim >= 0 && dim < std::ssize(spec.shape), op, in, "the tensor has no such dim");
  }
}

Cost moved(Specs in, Specs out) { return streaming(0, in, out); }

}  // namespace

TensorSpecs infer(const AllReduce&, Specs in, int) { return {in.begin(), in.end()}; }
Gradients backward(const AllReduce&, const BackwardContext&) { not_differentiable("all_reduce"); }
ShardRule shard(const AllReduce&, AxisPlacements) { return placed_already("all_reduce"); }
Cost cost(const AllReduce&, Specs in, Specs out) { return moved(in, out); }

// The whole of a dim that does not divide is not known from the shard; parallelize sets it and
// verify accepts up to axis_size - 1 rows less.
TensorSpecs infer(const AllGather& op, Specs in, int axis_size) {
  expect_count("all_gather", in, 1);
  expect_dim("all_gather", in, op.dim);
  return {scaled(in[0], op.dim, axis_size, 1)};
}
Gradients backward(const AllGather&, const BackwardContext&) { not_differentiable("all_gather"); }
ShardRule shard(const AllGather&, AxisPlacements) { return placed_already("all_gather"); }
Cost cost(const AllGather&, Specs in, Specs out) { return moved(in, out); }

TensorSpecs infer(const ReduceScatter& op, Specs in, int axis_size) {
  expect_dim("reduce_scatter", in, op.dim);
  TensorSpecs out;
  for (const TensorSpec& spec : in) out.push_back(scaled(spec, op.dim, 1, axis_size));
  return out;
}
Gradients backward(const ReduceScatter&, const BackwardContext&) {
  not_differentiable("reduce_scatter");
}
ShardRule shard(const ReduceScatter&, AxisPlacements) { return placed_already("reduce_scatter"); }
Cost cost(const ReduceScatter&, Specs in, Specs out) { return moved(in, out); }

TensorSpecs infer(const AllToAll& op, Specs in, int axis_size) {
  expect_count("all_to_all", in, 1);
  expect_dim("all_to_all", in, op.from_dim);
  expect_dim("all_to_all", in, op.to_dim);
  return {scaled(scaled(in[0], op.from_dim, axis_size, 1), op.to_dim, 1, axis_size)};
}
Gradients backward(const AllToAll&, const BackwardContext&) { not_differentiable("all_to_all"); }
ShardRule shard(const AllToAll&, AxisPlacements) { return placed_already("all_to_all"); }
Cost cost(const AllToAll&, Specs in, Specs out) { return moved(in, out); }

TensorSpecs infer(const Slice& op, Specs in, int axis_size) {
  expect_count("slice", in, 1);
  expect_dim("slice", in, op.dim);
  return {scaled(in[0], op.dim, 1, axis_size)};
}
Gradients backward(const Slice&, const BackwardContext&) { not_differentiable("slice"); }
ShardRule shard(const Slice&, AxisPlacements) { return placed_already("slice"); }
Cost cost(const Slice& op, Specs in, Specs out) { return op.dim == 0 ? Cost{} : moved(in, out); }

TensorSpecs infer(const AllReduceMax&, Specs in, int) {
  expect_count("all_reduce_max", in, 1);
  return {in[0]};
}
Gradients backward(const AllReduceMax&, const BackwardContext&) {
  not_differentiable("all_reduce_max");
}
ShardRule shard(const AllReduceMax&, AxisPlacements) { return placed_already("all_reduce_max"); }
Cost cost(const AllReduceMax&, Specs in, Specs out) { return moved(in, out); }

TensorSpecs infer(const ExchangeRows&, Specs in, int) {
  expect_count("exchange_rows", in, 2);
  return {in[0], in[1]};
}
Gradients backward(const ExchangeRows&, const BackwardContext&) {
  not_differentiable("exchange_rows");
}
ShardRule shard(const ExchangeRows&, AxisPlacements) { return placed_already("exchange_rows"); }
Cost cost(const ExchangeRows&, Specs in, Specs out) { return moved(in, out); }

TensorSpecs infer(const ReturnRows&, Specs in, int) {
  expect_count("return_rows", in, 3);
  return {in[0]};
}
Gradients backward(const ReturnRows&, const BackwardContext&) { not_differentiable("return_rows"); }
ShardRule shard(const ReturnRows&, AxisPlacements) { return placed_already("return_rows"); }
Cost cost(const ReturnRows&, Specs in, Specs out) { return moved(in, out); }

}  // namespace caravan
