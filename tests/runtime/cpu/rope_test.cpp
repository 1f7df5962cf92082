#include "tests/runtime/cpu/op_check.h"

namespace caravan {
namespace {

TEST(CpuRope, RepeatedAndFarPositions) {
  for (const int64_t head_dim : {2, 8, 64, 128}) {
    const Tensor x = normal({90, 3 * head_dim}, 1);
    for (const int32_t last : {1, 30, 90, 8000}) {
      const Tensor positions = random_integers(90, 0, last, 2);
      check_op(Rope{head_dim, 500000.0, {}, false}, {{x, positions}, {x.shape}, {}, 1e-6});
    }
  }
}

TEST(CpuRope, Llama3Scaling) {
  const Tensor x = normal({50, 128}, 1);
  const Tensor positions = random_integers(50, 0, 100000, 2);
  const RopeScaling scaling{8.0, 1.0, 4.0, 8192};
  check_op(Rope{64, 500000.0, scaling, false}, {{x, positions}, {x.shape}, {}, 1e-6});
  const RopeScaling no_band{8.0, 2.0, 2.0, 8192};
  check_op(Rope{64, 500000.0, no_band, false}, {{x, positions}, {x.shape}, {}, 1e-6});
}

TEST(CpuRope, InverseUndoesIt) {
  const Tensor x = normal({40, 64}, 1);
  const Tensor positions = random_integers(40, 0, 1000, 2);
  const auto turned = check_op(Rope{32, 1e4, {}, false}, {{x, positions}, {x.shape}, {}, 1e-6});
  const auto back =
      check_op(Rope{32, 1e4, {}, true}, {{turned[0], positions}, {x.shape}, {}, 1e-6});
  expect_close(back, {x}, 1e-6);
}

}  // namespace
}  // namespace caravan
