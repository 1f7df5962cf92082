// parity.json: the proof that an export leaves beside its files. A checksum for every tensor, of
// files that were read again and compared with the checkpoint element by element, and how far the
// logits of our forward pass on them are from those on the checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/safetensors_header.h"
#include "launch/logits_run.h"

namespace caravan {

inline constexpr const char* kParityName = "parity.json";

struct Parity {
  SafetensorsDType dtype = SafetensorsDType::f32;
  std::map<std::string, uint32_t> checksums = {};  // CRC32C of the bytes of each tensor
  int64_t num_tokens = 0;
  std::optional<LogitsDifference> logits = {};  // absent: they were not compared
};

// Text of the file. The same export gives the same text.
std::string encode(const Parity& parity);

// For exchange between ranks.
std::string encode_checksums(const std::map<std::string, uint32_t>& checksums);
std::map<std::string, uint32_t> decode_checksums(const std::string& text);

std::string_view dtype_name(SafetensorsDType dtype);  // "float32", "bfloat16"

}  // namespace caravan
