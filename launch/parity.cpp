#include "launch/parity.h"

#include <nlohmann/json.hpp>

#include "checkpoint/crc32c.h"

namespace caravan {

using nlohmann::ordered_json;

std::string encode(const Parity& parity) {
  ordered_json json = {{"format_version", 1},
                       {"tool", "caravan " CARAVAN_VERSION},
                       {"torch_dtype", dtype_name(parity.dtype)},
                       {"num_tensors", parity.checksums.size()},
                       {"different_elements", 0}};  // with one there is no export
  ordered_json& logits = json["logits"] = nullptr;
  if (parity.logits) {
    logits = {{"num_tokens", parity.num_tokens},
              {"max_abs_difference", parity.logits->largest},
              {"max_abs_logit", parity.logits->largest_logit}};
  }
  ordered_json& tensors = json["crc32c"] = ordered_json::object();
  for (const auto& [name, crc] : parity.checksums) tensors[name] = crc32c_hex(crc);
  return json.dump(1) + "\n";
}

std::string encode_checksums(const std::map<std::string, uint32_t>& checksums) {
  return nlohmann::json(checksums).dump();
}

std::map<std::string, uint32_t> decode_checksums(const std::string& text) {
  return nlohmann::json::parse(text).get<std::map<std::string, uint32_t>>();
}

std::string_view dtype_name(SafetensorsDType dtype) {
  return dtype == SafetensorsDType::bf16 ? "bfloat16" : "float32";
}

}  // namespace caravan
