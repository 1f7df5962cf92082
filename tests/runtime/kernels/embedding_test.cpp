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

TEST(Embedding, PartOfATable) {
  Tensor table = normal({12, 24}, 2);
  table.offset = {20, 0};
  table.whole = {50, 24};
  const Tensor ids = random_integers(70, 0, 50, 1);
  check_op(Embedding{}, {{table, ids}, {{70, 24}}, {}, 0});
}

// Many ids, each of few tokens; one id of nearly all tokens; none.
TEST(Embedding, GradientOfManyAndOfFewIds) {
  constexpr int64_t kVocab = 3000, kTokens = 1500;
  const Tensor table = filled({kVocab, 8}, NAN), dy = normal({kTokens, 8}, 3);
  for (const int32_t kinds : {3000, 700, 2, 1}) {
    const Tensor ids = random_integers(kTokens, 3000 - kinds, 3000, 1);
    check_op(EmbeddingGrad{}, {{table, ids, dy}, {{kVocab, 8}}, {}, 1e-5, 10});
  }
  check_op(EmbeddingGrad{}, {{table, integers({}), normal({0, 8}, 3)}, {{kVocab, 8}}});
}

}  // namespace
}  // namespace caravan
