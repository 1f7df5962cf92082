// Elements of safetensors files from and to f32. Any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "checkpoint/safetensors_header.h"

namespace caravan {

// A checkpoint error that names the tensor and its file (`origin`) unless widen() takes its dtype:
// F32, F16 or BF16.
void expect_weight_dtype(const SafetensorsTensor& tensor, const std::string& origin);

// `count` elements of `bytes` as f32, exactly; a NaN keeps its payload.
void widen(SafetensorsDType dtype, const char* bytes, int64_t count, float* out);

// To F32, or to BF16 with rounding to nearest, ties to even (a NaN stays one).
void narrow(std::span<const float> values, SafetensorsDType dtype, char* bytes);

}  // namespace caravan
