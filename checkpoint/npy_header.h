// The header of a .npy file (NumPy's array format 1.0 to 3.0): a magic number, a length and a
// Python dictionary, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. Only that form is
// read, nothing is evaluated; arrays of Python objects, which NumPy unpickles, are refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/types.h"

namespace caravan {

enum class NpyType : uint8_t { f16, f32, f64, i32, i64 };  // little-endian
int64_t size_bytes(NpyType type);
std::string_view name(NpyType type);  // "f16"

struct NpyArray {
  NpyType type = NpyType::f32;
  Shape shape;                 // {} is a scalar
  bool fortran_order = false;  // the first dim is the fastest
  int64_t num_elements = 0;
  int64_t data_offset = 0;  // in bytes, from the begin of the .npy
};

// As many bytes of a .npy as its header may have.
inline constexpr int64_t kLargestNpyHeader = 16 << 10;

// `begin`: the first bytes of a .npy, at least kLargestNpyHeader of them or all. `size_bytes`: of
// the whole, which must be exactly header and elements. A checkpoint_error that begins with
// `place`.
NpyArray parse_npy_header(std::string_view begin, int64_t size_bytes, const std::string& place);

}  // namespace caravan
