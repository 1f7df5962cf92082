// The texts of the safetensors format: the header of a file, which says where tensors lie, and the
// index of a folder, which says in which file. Nothing in them is believed: sizes, offsets, names
// and depth are checked, with checkpoint errors of one line that open with `origin` (a path).
// Files are read in checkpoint/safetensors.h.
//
// Memory: parsing takes some 14 bytes for each of the text (a header of 100 KB is usual), which are
// given back at the end.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/types.h"

namespace caravan {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr const char* kSafetensorsName = "model.safetensors";
inline constexpr const char* kSafetensorsIndexName = "model.safetensors.index.json";

enum class SafetensorsDType : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  f8_e4m3,
  f8_e5m2
};
std::string_view name(SafetensorsDType dtype);  // as in files: "F32", "BF16"
int64_t size_bytes(SafetensorsDType dtype);

// Row-major, little-endian, in bytes [begin, end) counted from the end of the header.
struct SafetensorsTensor {
  std::string name;
  SafetensorsDType dtype = SafetensorsDType::f32;
  Shape shape;  // {}: a scalar; dims of size 0 are legal
  int64_t begin = 0;
  int64_t end = 0;
  bool operator==(const SafetensorsTensor&) const = default;
};

// The tensors, in the order of their bytes; they tile [0, data_bytes) exactly. `json` is the header
// without its length.
std::vector<SafetensorsTensor> parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                                        const std::string& origin);

struct SafetensorsIndex {
  std::map<std::string, std::string> files;  // by tensor: a plain file name
};
// Its metadata is not compared with the files: writers that counted tied tensors twice gave a
// total_size that is none.
SafetensorsIndex parse_safetensors_index(std::string_view json, const std::string& origin);

}  // namespace caravan
