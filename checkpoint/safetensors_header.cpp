#include "checkpoint/safetensors_header.h"

#include <algorithm>
#include <set>

#include "data/folder_path.h"
#include "runtime/error.h"
#include "runtime/json.h"

namespace caravan {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxHeaderDepth = 8;  // there are three levels; the rest is for good messages
constexpr size_t kMaxTensors = size_t{1} << 20;
constexpr size_t kMaxTensorNameBytes = 512;
constexpr size_t kMaxTensorDims = 8;
constexpr size_t kMaxShardFiles = 10'000;
constexpr IntegerRange kSizes = {0, INT64_MAX};
constexpr const char* kMetadata = "__metadata__";

struct DTypeInfo {
  std::string_view name;
  int64_t size_bytes;
};
// By SafetensorsDType.
constexpr std::array<DTypeInfo, 15> kDTypeInfos = {{{"F64", 8},
                                                    {"F32", 4},
                                                    {"F16", 2},
                                                    {"BF16", 2},
                                                    {"I64", 8},
                                                    {"I32", 4},
                                                    {"I16", 2},
                                                    {"I8", 1},
                                                    {"U64", 8},
                                                    {"U32", 4},
                                                    {"U16", 2},
                                                    {"U8", 1},
                                                    {"BOOL", 1},
                                                    {"F8_E4M3", 1},
                                                    {"F8_E5M2", 1}}};

SafetensorsDType dtype_of(JsonKeys& keys) {
  const std::string text = keys.need_text("dtype");
  std::string known;
  for (size_t i = 0; i < kDTypeInfos.size(); ++i) {
    if (kDTypeInfos[i].name == text) return static_cast<SafetensorsDType>(i);
    known.append(i == 0 ? "" : ", ").append(kDTypeInfos[i].name);
  }
  keys.refuse("dtype", "one of " + known);
}

[[noreturn]] void fail_at(const std::string& origin, const std::string& what) {
  throw checkpoint_error(origin + ": " + what);
}

bool is_safe_tensor_name(std::string_view name) {
  const auto is_control = [](unsigned char c) { return c < ' ' || c == 0x7F; };
  return !name.empty() && name.size() <= kMaxTensorNameBytes &&
         std::none_of(name.begin(), name.end(), is_control);
}

void require_tensor_name(std::string_view name, const std::string& origin) {
  if (is_safe_tensor_name(name)) return;
  fail_at(origin, absl::StrFormat("%s is no name of a tensor: 1 to %d bytes, none of control",
                                  in_quotes(name), kMaxTensorNameBytes));
}

// A dim of 0 does not excuse the others: what multiplies shapes later must not overflow.
int64_t bytes_of(const SafetensorsTensor& tensor, const JsonKeys& keys) {
  int64_t bytes = size_bytes(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) {
      keys.fail(absl::StrFormat("has the impossible shape %s", to_string(tensor.shape)));
    }
  }
  return std::ranges::count(tensor.shape, 0) > 0 ? 0 : bytes;
}

void read_offsets(JsonKeys& keys, SafetensorsTensor& tensor) {
  const std::vector<int64_t> offsets = keys.need_integers("data_offsets", kSizes, 2);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    keys.refuse("data_offsets", "[begin, end], the end not before the beginning");
  }
  tensor.begin = offsets[0], tensor.end = offsets[1];
  const int64_t bytes = bytes_of(tensor, keys);
  if (tensor.end - tensor.begin == bytes) return;
  keys.fail(absl::StrFormat("has %d bytes, but %s%s has %d", tensor.end - tensor.begin,
                            caravan::name(tensor.dtype), to_string(tensor.shape), bytes));
}

// One entry of the header.
SafetensorsTensor read_tensor(std::string_view name, JsonKeys keys) {
  SafetensorsTensor tensor{.name = std::string(name),
                           .dtype = dtype_of(keys),
                           .shape = keys.need_integers("shape", kSizes, kMaxTensorDims)};
  read_offsets(keys, tensor);
  keys.finish();
  return tensor;
}

void check_metadata(const JsonText& text, dom::element element) {
  JsonKeys metadata(text, element, "", kMetadata);
  for (const std::string& key : metadata.rest()) metadata.need_text(key);
}

// Sorts them, and expects each to begin where the one before ends.
void check_tiling(std::vector<SafetensorsTensor>& tensors, int64_t data_bytes,
                  const std::string& origin) {
  std::ranges::stable_sort(tensors, [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t end = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.begin != end) {
      fail_at(origin,
              absl::StrFormat("tensor %s begins at byte %d, but what is before it ends at %d",
                              in_quotes(tensor.name), tensor.begin, end));
    }
    end = tensor.end;
  }
  if (end == data_bytes) return;
  fail_at(origin, absl::StrFormat("its tensors have %d bytes, but the file has %d for them; is it "
                                  "whole? Download it again",
                                  end, data_bytes));
}

std::map<std::string, std::string> weight_map_of(dom::object entries, const std::string& origin) {
  std::map<std::string, std::string> files;
  std::set<std::string_view> names;
  for (const auto& [tensor, value] : entries) {
    require_tensor_name(tensor, origin);
    std::string_view file;
    if (value.get(file) != simdjson::SUCCESS) {
      fail_at(origin, absl::StrFormat("weight_map has no file for %s", in_quotes(tensor)));
    }
    if (!is_file_name(std::string(file))) {
      fail_at(origin,
              absl::StrFormat("weight_map has %s in %s, which is no plain name of a file in "
                              "this folder; correct it",
                              in_quotes(tensor), in_quotes(file)));
    }
    if (!files.emplace(tensor, file).second) {
      fail_at(origin, absl::StrFormat("weight_map has the key %s twice", in_quotes(tensor)));
    }
    names.insert(file);
  }
  if (files.size() > kMaxTensors || names.size() > kMaxShardFiles) {
    fail_at(origin,
            absl::StrFormat("more than %d tensors or %d files", kMaxTensors, kMaxShardFiles));
  }
  return files;
}

}  // namespace

std::string_view name(SafetensorsDType dtype) {
  return kDTypeInfos.at(static_cast<size_t>(dtype)).name;
}

int64_t size_bytes(SafetensorsDType dtype) {
  return kDTypeInfos.at(static_cast<size_t>(dtype)).size_bytes;
}

std::vector<SafetensorsTensor> parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                                        const std::string& origin) {
  if (!json.starts_with('{'))
    fail_at(origin, "is no safetensors file: its header is no JSON object");
  const JsonText text(json, kMaxHeaderDepth, origin, ExitCode::checkpoint);
  std::vector<SafetensorsTensor> tensors;
  std::set<std::string_view> names;
  for (const dom::key_value_pair entry : text.entries()) {
    if (!names.insert(entry.key).second) fail_at(origin, in_quotes(entry.key) + " is there twice");
    if (entry.key == kMetadata) {
      check_metadata(text, entry.value);
      continue;
    }
    require_tensor_name(entry.key, origin);
    if (tensors.size() == kMaxTensors) {
      fail_at(origin, absl::StrFormat("more than %d tensors", kMaxTensors));
    }
    const std::string owner = "tensor " + in_quotes(entry.key);
    tensors.push_back(read_tensor(entry.key, JsonKeys(text, entry.value, "", owner)));
  }
  check_tiling(tensors, data_bytes, origin);
  return tensors;
}

SafetensorsIndex parse_safetensors_index(std::string_view json, const std::string& origin) {
  const JsonText text(json, kMaxHeaderDepth, origin, ExitCode::checkpoint);
  JsonKeys keys = text.keys();
  if (!keys.has("weight_map")) {
    fail_at(origin, "has no weight_map, which says where tensors are");
  }
  const SafetensorsIndex index{weight_map_of(keys.need_entries("weight_map"), origin)};
  if (keys.has("metadata")) keys.need_entries("metadata");  // sizes, of no use here
  keys.finish();
  return index;
}

}  // namespace caravan
