// Elements of safetensors files from and to f32. Any thread.
#pragma once

#include <cstdint>
#include <span>

#include "checkpoint/safetensors_header.h"

namespace caravan {

// Whether widen() takes it: F32, F16 and BF16.
bool is_weight_dtype(SafetensorsDType dtype);

// `count` elements of `bytes` as f32, exactly; a NaN keeps its payload.
void widen(SafetensorsDType dtype, const char* bytes, int64_t count, float* out);

// To F32, or to BF16 with rounding to nearest, ties to even (a NaN stays one).
void narrow(std::span<const float> values, SafetensorsDType dtype, char* bytes);

}  // namespace caravan
