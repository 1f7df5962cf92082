#include "checkpoint/safetensors_header.h"

#include <algorithm>
#include <set>

#include "models/hf_json.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxHeaderDepth = 8;  // there are three levels; the rest is for good messages
constexpr size_t kMaxTensors = size_t{1} << 20;
constexpr size_t kMaxTensorNameBytes = 512;
constexpr size_t kMaxTensorDims = 8;
constexpr size_t kMaxShardFiles = 10'000;
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

std::optional<SafetensorsDType> find_dtype(std::string_view text) {
  for (size_t i = 0; i < kDTypeInfos.size(); ++i) {
    if (kDTypeInfos[i].name == text) return static_cast<SafetensorsDType>(i);
  }
  return std::nullopt;
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

// One entry of the header.
class EntryReader {
 public:
  EntryReader(const std::string& origin, std::string_view name) : origin_(origin), name_(name) {}

  SafetensorsTensor read(dom::element element) const {
    dom::object object;
    if (element.get(object) != simdjson::SUCCESS) fail("is not an object");
    std::optional<dom::element> dtype, shape, offsets;
    for (const dom::key_value_pair field : object) {
      std::optional<dom::element>* const place = field.key == "dtype"          ? &dtype
                                                 : field.key == "shape"        ? &shape
                                                 : field.key == "data_offsets" ? &offsets
                                                                               : nullptr;
      if (place == nullptr) fail("has the unknown key " + in_quotes(field.key));
      if (place->has_value()) fail("has the key " + in_quotes(field.key) + " twice");
      *place = field.value;
    }
    if (!dtype || !shape || !offsets) fail("lacks dtype, shape or data_offsets");
    SafetensorsTensor tensor{
        .name = std::string(name_), .dtype = dtype_of(*dtype), .shape = shape_of(*shape)};
    read_offsets(*offsets, tensor);
    return tensor;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    caravan::fail_at(origin_, absl::StrFormat("tensor %s %s", in_quotes(name_), what));
  }

  SafetensorsDType dtype_of(dom::element element) const {
    std::string_view text;
    if (element.get(text) != simdjson::SUCCESS) fail("has a dtype that is no text");
    const std::optional<SafetensorsDType> dtype = find_dtype(text);
    if (!dtype) fail("has the unknown dtype " + in_quotes(text));
    return *dtype;
  }

  // Not negative, of at most so many entries.
  std::vector<int64_t> numbers(dom::element element, size_t max_count, const char* what) const {
    dom::array list;
    if (element.get(list) != simdjson::SUCCESS) fail(absl::StrFormat("has %s no list", what));
    std::vector<int64_t> result;
    for (const dom::element entry : list) {
      int64_t number = 0;
      if (entry.get(number) != simdjson::SUCCESS || number < 0 || result.size() == max_count) {
        fail(absl::StrFormat("has %s that is not a list of at most %d integers from 0", what,
                             max_count));
      }
      result.push_back(number);
    }
    return result;
  }

  Shape shape_of(dom::element element) const { return numbers(element, kMaxTensorDims, "a shape"); }

  // A dim of 0 does not excuse the others: what multiplies shapes later must not overflow.
  int64_t bytes_of(const SafetensorsTensor& tensor) const {
    int64_t bytes = caravan::size_bytes(tensor.dtype);
    for (const int64_t size : tensor.shape) {
      if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes)) {
        fail(absl::StrFormat("has the impossible shape %s", to_string(tensor.shape)));
      }
    }
    return std::ranges::count(tensor.shape, 0) > 0 ? 0 : bytes;
  }

  void read_offsets(dom::element element, SafetensorsTensor& tensor) const {
    const std::vector<int64_t> offsets = numbers(element, 2, "data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1]) {
      fail("has data_offsets that are not [begin, end]");
    }
    tensor.begin = offsets[0], tensor.end = offsets[1];
    const int64_t bytes = bytes_of(tensor);
    if (tensor.end - tensor.begin == bytes) return;
    fail(absl::StrFormat("has %d bytes, but %s%s has %d", tensor.end - tensor.begin,
                         caravan::name(tensor.dtype), to_string(tensor.shape), bytes));
  }

  const std::string& origin_;
  std::string_view name_;
};

void check_metadata(dom::element element, const std::string& origin) {
  dom::object metadata;
  if (element.get(metadata) != simdjson::SUCCESS) fail_at(origin, "__metadata__ is not an object");
  std::set<std::string_view> keys;
  for (const dom::key_value_pair entry : metadata) {
    if (!entry.value.is_string()) {
      fail_at(origin,
              absl::StrFormat("__metadata__ has %s, which is no text", in_quotes(entry.key)));
    }
    if (keys.insert(entry.key).second) continue;
    fail_at(origin, absl::StrFormat("__metadata__ has %s twice", in_quotes(entry.key)));
  }
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

// Keys of `object`, each once.
std::map<std::string_view, dom::element> keys_of(dom::object object, const std::string& where) {
  std::map<std::string_view, dom::element> keys;
  for (const dom::key_value_pair entry : object) {
    if (!keys.emplace(entry.key, entry.value).second) {
      fail_at(where, "has the key " + in_quotes(entry.key) + " twice");
    }
  }
  return keys;
}

std::map<std::string, std::string> weight_map_of(dom::element element, const std::string& origin) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) fail_at(origin, "weight_map is not an object");
  std::map<std::string, std::string> files;
  std::set<std::string_view> names;
  for (const auto& [tensor, value] : keys_of(object, origin + ": weight_map")) {
    require_tensor_name(tensor, origin);
    std::string_view file;
    if (value.get(file) != simdjson::SUCCESS) {
      fail_at(origin, absl::StrFormat("weight_map has no file for %s", in_quotes(tensor)));
    }
    files.emplace(tensor, file);
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
  const JsonText text(json, kMaxHeaderDepth, origin);
  dom::object root;
  if (text.root().get(root) != simdjson::SUCCESS) fail_at(origin, "its header is not an object");
  std::vector<SafetensorsTensor> tensors;
  std::set<std::string_view> names;
  for (const dom::key_value_pair entry : root) {
    if (!names.insert(entry.key).second) fail_at(origin, in_quotes(entry.key) + " is there twice");
    if (entry.key == kMetadata) {
      check_metadata(entry.value, origin);
      continue;
    }
    require_tensor_name(entry.key, origin);
    if (tensors.size() == kMaxTensors) {
      fail_at(origin, absl::StrFormat("more than %d tensors", kMaxTensors));
    }
    tensors.push_back(EntryReader(origin, entry.key).read(entry.value));
  }
  check_tiling(tensors, data_bytes, origin);
  return tensors;
}

SafetensorsIndex parse_safetensors_index(std::string_view json, const std::string& origin) {
  const JsonText text(json, kMaxHeaderDepth, origin);
  dom::object root;
  if (text.root().get(root) != simdjson::SUCCESS) fail_at(origin, "is not an object");
  SafetensorsIndex index;
  bool has_map = false;
  for (const auto& [key, value] : keys_of(root, origin)) {
    if (key == "metadata") {
      if (!value.is_object()) fail_at(origin, "metadata is not an object");
    } else if (key == "weight_map") {
      index.files = weight_map_of(value, origin);
      has_map = true;
    } else {
      fail_at(origin, "has the unknown key " + in_quotes(key));
    }
  }
  if (!has_map) fail_at(origin, "has no weight_map, which says where tensors are");
  return index;
}

}  // namespace caravan
