#include "checkpoint/safetensors_values.h"

#include <bit>
#include <cstring>

#include "runtime/bfloat16.h"
#include "runtime/error.h"

namespace caravan {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

bool is_weight_dtype(SafetensorsDType dtype) {
  return dtype == SafetensorsDType::f32 || dtype == SafetensorsDType::f16 ||
         dtype == SafetensorsDType::bf16;
}

// 1 sign, 5 exponent (bias 15) and 10 fraction bits.
float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1FU, fraction = half & 0x3FFU;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = static_cast<float>(fraction) * 0x1p-24f;  // a normal f32, so exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(small));
}

// `bytes` need not be aligned.
template <typename Convert>
void convert_words(const char* bytes, int64_t count, float* out, const Convert& convert) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t word;
    std::memcpy(&word, bytes + 2 * i, sizeof(word));
    out[i] = convert(word);
  }
}

}  // namespace

void expect_weight_dtype(const SafetensorsTensor& tensor, const std::string& origin) {
  if (is_weight_dtype(tensor.dtype)) return;
  throw checkpoint_error(absl::StrFormat(
      "%s: tensor '%s' is %s, which is not read; save the model in F32, BF16 or F16", origin,
      tensor.name, name(tensor.dtype)));
}

void widen(SafetensorsDType dtype, const char* bytes, int64_t count, float* out) {
  check(is_weight_dtype(dtype), "%s is not widened", name(dtype));
  if (dtype == SafetensorsDType::f32) {
    std::memcpy(out, bytes, static_cast<size_t>(count) * sizeof(float));
  } else if (dtype == SafetensorsDType::f16) {
    convert_words(bytes, count, out, half_to_float);
  } else {
    convert_words(bytes, count, out, [](uint16_t word) { return to_float(BFloat16{word}); });
  }
}

void narrow(std::span<const float> values, SafetensorsDType dtype, char* bytes) {
  if (dtype == SafetensorsDType::f32) {
    std::memcpy(bytes, values.data(), values.size_bytes());
    return;
  }
  check(dtype == SafetensorsDType::bf16, "%s is not written", name(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    const BFloat16 value = to_bfloat16(values[i]);
    std::memcpy(bytes + 2 * i, &value.bits, sizeof(value.bits));
  }
}

}  // namespace caravan
