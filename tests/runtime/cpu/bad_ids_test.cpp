// Numbers of tokens that no table has: the CPU's kernels look at every one.
#include "runtime/error.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

TEST(Embedding, IdOutsideTheTable) {
  const OpCase outside{{normal({4, 8}, 1), integers({0, 4})}, {{2, 8}}};
  EXPECT_THROW(run_kernel(Embedding{}, outside), Error);
  const OpCase negative{{normal({4, 8}, 2), integers({-1, 2}), normal({2, 8}, 1)}, {{4, 8}}};
  EXPECT_THROW(run_kernel(EmbeddingGrad{}, negative), Error);
}

TEST(LinearCrossEntropy, TargetOutsideTheVocabulary) {
  const OpCase c{{normal({2, 4}, 1), normal({5, 4}, 2), integers({0, 5})}, {{}, {}}};
  EXPECT_THROW(run_kernel(LinearCrossEntropy{}, c), Error);
}

}  // namespace
}  // namespace caravan
