#include "runtime/cuda/cudnn_attention.h"

namespace caravan::cuda {
namespace {

constexpr int64_t kTokensMultiple = 128;

struct Sizes {
  int64_t rows;         // tokens times query heads
  int64_t padded_rows;  // with sequences filled up
};

template <typename OpStruct>
Sizes sizes_of(const OpStruct& op, const WorkspaceQuery& query) {
  const Shape& q = query.inputs[0].shape;
  const int64_t num_heads = q[1] / op.head_dim, num_sequences = q[0] / op.sequence_len;
  const int64_t padded = (op.sequence_len + kTokensMultiple - 1) / kTokensMultiple *
                         kTokensMultiple;
  return {q[0] * num_heads, num_sequences * padded * num_heads};
}

}  // namespace

int64_t cudnn_workspace_bytes(const Attention& op, const WorkspaceQuery& query) {
  if (!cudnn_may_take(op, query.inputs[0].dtype)) return 0;
  return sizes_of(op, query).rows * 4 + kCudnnSlack;
}

int64_t cudnn_workspace_bytes(const AttentionGrad& op, const WorkspaceQuery& query) {
  if (!cudnn_may_take(op, query.inputs[0].dtype)) return 0;
  const Sizes sizes = sizes_of(op, query);
  const int64_t sums_of_heads = op.group > 1 ? 3 : 1;  // dq; dk and dv
  return sizes.rows * 4 + sizes.padded_rows * 4 +
         sizes.padded_rows * op.head_dim * 4 * sums_of_heads + kCudnnSlack;
}

}  // namespace caravan::cuda
