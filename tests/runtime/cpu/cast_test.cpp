// Casts between f32 and bf16, and the specification of ops on bf16 values.
#include <bit>
#include <cmath>
#include <limits>

#include "runtime/bfloat16.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/reference.h"
#include "runtime/error.h"
#include "tests/runtime/kernels/op_check.h"

namespace caravan {
namespace {

using Halves = std::vector<BFloat16>;

std::vector<uint16_t> bits_of(const Halves& values) {
  std::vector<uint16_t> bits;
  for (const BFloat16 value : values) bits.push_back(value.bits);
  return bits;
}

TensorView view_of(std::vector<float>& values) {
  return {.data = values.data(), .shape = {std::ssize(values)}};
}
TensorView view_of(Halves& values) {
  return {.data = values.data(), .shape = {std::ssize(values)}, .dtype = DType::bf16};
}

template <typename From, typename To>
void cast(From from, To& to, int num_threads) {
  const std::vector<TensorView> inputs = {view_of(from)}, outputs = {view_of(to)};
  cpu::run(Cast{outputs[0].dtype}, {inputs, outputs}, cpu::CpuThreads(num_threads));
}

Halves rounded(const std::vector<float>& values, int num_threads = 1) {
  Halves result(values.size());
  cast(values, result, num_threads);
  return result;
}

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

TEST(CpuCast, RoundsToNearestEven) {
  const std::vector<std::pair<uint32_t, uint16_t>> cases = {
      {0x3F800000, 0x3F80},  // 1
      {0x3F807FFF, 0x3F80},  // just below the middle
      {0x3F808000, 0x3F80},  // the middle: to even, down
      {0x3F818000, 0x3F82},  // the middle: to even, up
      {0x3F808001, 0x3F81},  // just above the middle
      {0x3FFFFFFF, 0x4000},  // the carry runs into the exponent
      {0x80000000, 0x8000},  // -0
      {0xBF808001, 0xBF81},  // signs do not matter
      {0x7F7FFFFF, 0x7F80},  // too large: infinite
      {0xFF800000, 0xFF80},  // -infinite
      {0x00008000, 0x0000},  // half of the smallest: to even
      {0x00018000, 0x0002},  // denormals round alike
  };
  for (const auto& [from, to] : cases) {
    EXPECT_EQ(rounded({from_bits(from)})[0].bits, to) << std::hex << from;
    EXPECT_EQ(to_bfloat16(from_bits(from)).bits, to) << std::hex << from;
  }
}

TEST(CpuCast, NaNStaysNaN) {
  for (const uint32_t bits : {0x7F800001U, 0x7FFFFFFFU, 0xFF808000U, 0xFFFFFFFFU}) {
    EXPECT_TRUE(std::isnan(to_float(rounded({from_bits(bits)})[0]))) << std::hex << bits;
  }
}

// Every bf16, and back.
TEST(CpuCast, WideningIsExact) {
  Halves all;
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) all.push_back({static_cast<uint16_t>(bits)});
  std::vector<float> wide(all.size());
  cast(all, wide, 2);
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), uint32_t{all[i].bits} << 16);
  }
  const Halves back = rounded(wide);
  for (size_t i = 0; i < all.size(); ++i) {
    if (!std::isnan(wide[i])) {
      ASSERT_EQ(back[i].bits, all[i].bits);
    }
  }
}

// Against the specification, whose rounding is arithmetic and not a matter of bits.
TEST(CpuCast, AgreesWithTheSpecificationOnAnyThreads) {
  std::vector<float> values;
  const Tensor random = normal({70000}, 1);
  for (int64_t i = 0; i < random.size(); ++i) {
    values.push_back(std::ldexp(random.at(i), static_cast<int>(i % 290) - 150));
  }
  Halves expected(values.size());
  const std::vector<TensorView> inputs = {view_of(values)}, outputs = {view_of(expected)};
  reference::run(Cast{DType::bf16}, {inputs, outputs});
  for (const int num_threads : {1, 2, 3}) {
    EXPECT_EQ(bits_of(rounded(values, num_threads)), bits_of(expected));
  }
}

TEST(CpuCast, ToItsOwnTypeIsACopy) {
  const std::vector<float> values = {1.5f, -0.0f, from_bits(0x7F800001)};
  std::vector<float> copy(3);
  cast(values, copy, 1);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(copy[i]), std::bit_cast<uint32_t>(values[i]));
  }
  const Halves halves = {{0x3F80}, {0x7F81}};
  Halves same(2);
  cast(halves, same, 1);
  EXPECT_EQ(bits_of(same), bits_of(halves));
}

TEST(CpuCast, OtherKernelsRefuseBf16) {
  const auto backend = make_cpu_backend({});
  Halves a(4), b(4), sum(4);
  const std::vector<TensorView> inputs = {view_of(a), view_of(b)}, outputs = {view_of(sum)};
  EXPECT_THROW(backend->run(Add{}, {inputs, outputs}, Stream::compute), Error);
}

// --- the specification on bf16 -------------------------------------------------------------------

// 256 + 1 has nine bits: the products are summed in f32 and rounded once, to 256 and not by steps.
TEST(ReferenceOfAnyType, RoundsOnceAtTheEnd) {
  Halves a = rounded({256, 1, 1, 1}), b = rounded({1, 1, 1, 1}), product(1);
  std::vector<float> wide(1);
  TensorView row = view_of(a), column = view_of(b), out = view_of(product), exact = view_of(wide);
  row.shape = {1, 4};
  column.shape = {4, 1};
  out.shape = exact.shape = {1, 1};
  const std::vector<TensorView> inputs = {row, column}, outputs = {out}, exact_outputs = {exact};
  reference::run_any(MatMul{}, {inputs, outputs});
  EXPECT_EQ(to_float(product[0]), 260);  // 259 lies between 258 and 260
  reference::run_any(MatMul{.f32_output = true}, {inputs, exact_outputs});
  EXPECT_EQ(wide[0], 259);
}

// dx and dscores lie where the last two inputs do; the former is bf16, the latter f32.
TEST(ReferenceOfAnyType, KeepsInPlace) {
  Halves x = rounded({3, 5}), drows = rounded({10, 20}), dx = rounded({1, 2});
  std::vector<float> scores = {0.5f, 2}, dscores = {100, 200}, pass = {0};
  std::vector<int32_t> order = {1, 0}, ends = {2};
  const auto matrix = [](TensorView view) {
    view.shape = {2, 1};
    return view;
  };
  const auto ids = [](std::vector<int32_t>& values) {
    return TensorView{values.data(), {std::ssize(values)}, DType::i32};
  };
  const TensorView sum = matrix(view_of(dx)), sum_scores = matrix(view_of(dscores));
  const std::vector<TensorView> inputs = {
      matrix(view_of(x)), matrix(view_of(scores)), ids(order), ids(ends),
      {pass.data(), {}},  matrix(view_of(drows)),  sum,        sum_scores};
  const std::vector<TensorView> outputs = {sum, sum_scores};
  reference::run_any(DispatchGrad{true, {}}, {inputs, outputs});
  EXPECT_EQ(to_float(dx[0]), 1 + 0.5f * 20);
  EXPECT_EQ(to_float(dx[1]), 2 + 2 * 10);
  EXPECT_EQ(dscores[0], 100 + 3 * 20);
  EXPECT_EQ(dscores[1], 200 + 5 * 10);
}

TEST(ReferenceOfAnyType, HasNoCollectives) {
  EXPECT_FALSE(reference::is_specified(AllReduce{Axis::dp}));
  EXPECT_FALSE(reference::is_specified(Experts{}));
  EXPECT_TRUE(reference::is_specified(Attention{4, 4}));
  EXPECT_THROW(reference::run_any(AllReduce{Axis::dp}, {}), Error);
}

}  // namespace
}  // namespace caravan
