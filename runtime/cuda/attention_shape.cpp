#include "runtime/cuda/attention_shape.h"

#include <cmath>

#include "runtime/error.h"

namespace caravan::cuda {
namespace {

template <typename OpStruct>
AttentionShape make_shape(const OpStruct& op, const KernelArgs& args) {
  const TensorView &q = args.inputs[0], &k = args.inputs[1];
  const int64_t skipped = q.begin(1) - k.begin(1) * op.group;  // columns of q
  check(op.sequence_len > 0 && q.dim(0) % op.sequence_len == 0,
        "[attention] %d tokens are not sequences of %d", q.dim(0), op.sequence_len);
  const bool fits = skipped >= 0 && skipped + q.dim(1) <= op.group * k.dim(1);
  check(fits && q.dim(1) % op.head_dim == 0 && k.dim(1) % op.head_dim == 0,
        "[attention] q %s and k %s do not fit heads of width %d, %d for each of k",
        to_string(q.shape), to_string(k.shape), op.head_dim, op.group);
  return {.num_sequences = static_cast<int>(q.dim(0) / op.sequence_len),
          .sequence_len = static_cast<int>(op.sequence_len),
          .head_dim = static_cast<int>(op.head_dim),
          .num_heads = static_cast<int>(q.dim(1) / op.head_dim),
          .num_kv_heads = static_cast<int>(k.dim(1) / op.head_dim),
          .group = static_cast<int>(op.group),
          .first_head = static_cast<int>(skipped / op.head_dim),
          .scale = 1.0f / std::sqrt(static_cast<float>(op.head_dim))};
}

}  // namespace

AttentionShape attention_shape(const Attention& op, const KernelArgs& args) {
  return make_shape(op, args);
}
AttentionShape attention_shape(const AttentionGrad& op, const KernelArgs& args) {
  return make_shape(op, args);
}

}  // namespace caravan::cuda
