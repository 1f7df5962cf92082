// MatMul: a product of cuBLASLt.
#include "runtime/cuda/cublas_lt.h"
#include "runtime/cuda/kernels.h"

namespace caravan::cuda {

int64_t workspace_bytes(const MatMul&, const WorkspaceQuery& query) {
  const Shape& out = query.outputs[0].shape;
  return product_workspace_bytes(out[0], out[1]);
}

void run(const MatMul& op, const KernelArgs& args, const Queue& queue) {
  const TensorView& a = args.inputs[0];
  const TensorView& b = args.inputs[1];
  const TensorView& d = args.outputs[0];
  const Product product{.m = d.dim(0),
                        .n = d.dim(1),
                        .k = a.dim(op.transpose_a ? 0 : 1),
                        .type = a.dtype,
                        .output_type = d.dtype,
                        .a = {a.data, a.dim(1), op.transpose_a},
                        .b = {b.data, b.dim(1), op.transpose_b},
                        .addend = op.addend == Addend::none ? nullptr : args.inputs.back().data,
                        .d = d.data,
                        .stride = d.dim(1)};
  queue.cublas_lt->multiply(product, {args.workspace, args.workspace_bytes}, queue);
}

}  // namespace caravan::cuda
