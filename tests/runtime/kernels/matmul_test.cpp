#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

struct Size {
  int64_t m;
  int64_t n;
  int64_t k;
};

TEST(MatMul, EveryTransposeAndOddSizes) {
  const Size sizes[] = {{1, 1, 1}, {3, 5, 7}, {1, 130, 64}, {65, 33, 17}, {100, 64, 200}};
  for (const auto [m, n, k] : sizes) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        const Tensor a = normal(transpose_a ? Shape{k, m} : Shape{m, k}, 1);
        const Tensor b = normal(transpose_b ? Shape{n, k} : Shape{k, n}, 2);
        check_op(MatMul{transpose_a, transpose_b}, {{a, b}, {{m, n}}});
      }
    }
  }
}

TEST(MatMul, SeveralTilesBothWays) {
  const Size size{517, 1043, 24};
  const Tensor b = normal({size.n, size.k}, 2);
  check_op(MatMul{false, true}, {{normal({size.m, size.k}, 1), b}, {{size.m, size.n}}});
  check_op(MatMul{true, true}, {{normal({size.k, size.m}, 1), b}, {{size.m, size.n}}});
}

TEST(MatMul, AddsToWhatIsThere) {
  const Tensor a = normal({33, 50}, 1), b = normal({41, 50}, 2), addend = normal({33, 41}, 3);
  check_op(MatMul{false, true, Addend::separate}, {{a, b, addend}, {{33, 41}}});
  check_op(MatMul{false, true, Addend::in_place}, {{a, b, addend}, {{33, 41}}, {{0, 2}}});
}

// In mixed precision: gradients of weights, and the router's logits.
TEST(MatMul, OfBf16ToF32) {
  const Tensor a = normal({70, 33}, 1), b = normal({70, 24}, 2), addend = normal({33, 24}, 3);
  for (const Addend how : {Addend::none, Addend::separate, Addend::in_place}) {
    OpCase c{{a, b}, {{33, 24}}};
    if (how != Addend::none) c.inputs.push_back(addend);
    if (how == Addend::in_place) c.in_place = {{0, 2}};
    check_op(MatMul{true, false, how, true}, c);
  }
}

TEST(MatMul, NoRows) { check_op(MatMul{}, {{normal({0, 8}, 1), normal({8, 4}, 2)}, {{0, 4}}}); }

TEST(MatMul, NoDepthGivesZeros) {
  const Tensor a = normal({5, 0}, 1), b = normal({0, 4}, 2), addend = normal({5, 4}, 3);
  check_op(MatMul{}, {{a, b}, {{5, 4}}});
  check_op(MatMul{false, false, Addend::separate}, {{a, b, addend}, {{5, 4}}});
  check_op(MatMul{false, false, Addend::in_place}, {{a, b, addend}, {{5, 4}}, {{0, 2}}});
}

TEST(AddBias, AddsToEveryRow) {
  for (const Shape& shape : {Shape{131, 19}, {5, 1}, {33, 64}, {3, 4104}, {0, 8}}) {
    check_op(AddBias{}, {{normal(shape, 1), normal({shape[1]}, 2)}, {shape}, {}, 0});
  }
}

TEST(SumRows, OddNumbersOfRows) {
  for (const int64_t rows : {0, 1, 63, 64, 65, 200, 5000}) {
    for (const int64_t columns : {21, 264}) {
      check_op(SumRows{}, {{normal({rows, columns}, 1)}, {{columns}}});
    }
  }
}

}  // namespace
}  // namespace caravan
