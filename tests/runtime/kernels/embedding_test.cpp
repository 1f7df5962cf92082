#include <cmath>

#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

TEST(Embedding, RowsAndTheirGradient) {
  constexpr int64_t kVocab = 37;
  for (const int64_t width : {1, 20, 64, 200}) {
    const Tensor ids = random_integers(301, 0, kVocab, 1);
    check_op(Embedding{}, {{normal({kVocab, width}, 2), ids}, {{301, width}}, {}, 0});
    const Tensor dy = normal({301, width}, 3), addend = normal({kVocab, width}, 4);
    const Tensor table = filled({kVocab, width}, NAN);  // is not read
    check_op(EmbeddingGrad{}, {{table, ids, dy}, {{kVocab, width}}});
    check_op(EmbeddingGrad{Addend::separate}, {{table, ids, dy, addend}, {{kVocab, width}}});
    check_op(EmbeddingGrad{Addend::in_place},
             {{table, ids, dy, addend}, {{kVocab, width}}, {{0, 3}}});
  }
}

}  // namespace
}  // namespace caravan
