// This rank's part of a tensor: along dim 0 mostly a view, else a copy of one run of every row.
#include <algorithm>

#include "runtime/cuda/kernels.h"
#include "runtime/error.h"

namespace caravan::cuda {
namespace {

// A dense tensor seen along one dim: (outer, length, inner) with inner in bytes.
struct Along {
  int64_t outer = 1;
  int64_t length = 1;
  int64_t inner_bytes = 1;
};

Along along(const TensorView& tensor, int dim) {
  Along view{.inner_bytes = size_bytes(tensor.dtype)};
  for (int i = 0; i < static_cast<int>(tensor.shape.size()); ++i) {
    (i < dim ? view.outer : i > dim ? view.inner_bytes : view.length) *= tensor.dim(i);
  }
  return view;
}

}  // namespace

void run(const Slice& op, const KernelArgs& args, const Queue& queue) {
  check(args.communicator != nullptr, "[slice] there is no communicator for the axis");
  const TensorView& whole = args.inputs[0];
  const Along view = along(whole, op.dim);
  const int64_t size = args.communicator->size(), step = (view.length + size - 1) / size;
  const int64_t begin = std::min(view.length, step * args.communicator->rank());
  const int64_t run_bytes = std::min(step, view.length - begin) * view.inner_bytes;
  const std::byte* const from = whole.as<std::byte>() + begin * view.inner_bytes;
  // Along dim 0 the output is planned as a view of the input: then it lies there already.
  if (from == args.outputs[0].data || run_bytes == 0 || view.outer == 0) return;
  const auto width = static_cast<size_t>(run_bytes);
  const auto pitch = static_cast<size_t>(view.length * view.inner_bytes);
  check_cuda(
      cudaMemcpy2DAsync(args.outputs[0].data, width, from, pitch, width,
                        static_cast<size_t>(view.outer), cudaMemcpyDeviceToDevice, queue.stream),
      "slice of a tensor");
}

}  // namespace caravan::cuda
