// Sums tile by tile: an accumulator of a few KiB stays in the L1 cache while the parts stream by.
#include "parallel/rank_sum.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "runtime/bfloat16.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int64_t kTile = 2048;  // elements

// How an element is stored and what it is added in.
struct F32 {
  using Stored = float;
  using Sum = float;
  static Sum load(Stored value) { return value; }
  static Stored store(Sum sum) { return sum; }
};

struct I32 {
  using Stored = uint32_t;  // unsigned: overflow wraps, which is undefined for int32_t
  using Sum = uint32_t;
  static Sum load(Stored value) { return value; }
  static Stored store(Sum sum) { return sum; }
};

struct Bf16 {
  using Stored = uint16_t;
  using Sum = float;
  static Sum load(Stored value) { return to_float(BFloat16{value}); }
  static Stored store(Sum sum) { return to_bfloat16(sum).bits; }
};

template <typename Type>
void sum_tile(std::span<const void* const> parts, typename Type::Stored* out, int64_t begin,
              int64_t length) {
  std::array<typename Type::Sum, kTile> sum;
  const auto* first = static_cast<const typename Type::Stored*>(parts[0]) + begin;
  for (int64_t i = 0; i < length; ++i) sum[static_cast<size_t>(i)] = Type::load(first[i]);
  for (const void* part : parts.subspan(1)) {
    const auto* values = static_cast<const typename Type::Stored*>(part) + begin;
    for (int64_t i = 0; i < length; ++i) sum[static_cast<size_t>(i)] += Type::load(values[i]);
  }
  for (int64_t i = 0; i < length; ++i) out[begin + i] = Type::store(sum[static_cast<size_t>(i)]);
}

template <typename Type>
void sum_parts(std::span<const void* const> parts, void* out, int64_t count) {
  auto* const stored = static_cast<typename Type::Stored*>(out);
  for (int64_t begin = 0; begin < count; begin += kTile) {
    sum_tile<Type>(parts, stored, begin, std::min(kTile, count - begin));
  }
}

}  // namespace

void sum_in_rank_order(std::span<const void* const> parts, void* out, int64_t count, DType dtype) {
  check(!parts.empty(), "a sum over no ranks");
  switch (dtype) {
    case DType::f32:
      return sum_parts<F32>(parts, out, count);
    case DType::bf16:
      return sum_parts<Bf16>(parts, out, count);
    case DType::i32:
      return sum_parts<I32>(parts, out, count);
  }
  throw internal_error("unknown dtype");
}

}  // namespace caravan
