#include "data/json_object.h"

#include <algorithm>

#include "data/utf8.h"

namespace caravan {

namespace dom = simdjson::dom;

std::string quoted_part(std::string_view text) {
  constexpr size_t kShown = 40;
  std::string shown(text.substr(0, line_cut(text, kShown)));
  for (char& c : shown) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return "'" + shown + (text.size() > kShown ? "...'" : "'");
}

JsonObject::JsonObject(const std::string& path, const std::string& where, dom::element element)
    : path_(path), where_(where) {
  if (element.get(object_) != simdjson::SUCCESS) fail("", "is not an object");
}

std::string JsonObject::place(std::string_view key) const {
  return where_ + (where_.empty() || key.empty() ? "" : ".") + std::string(key);
}

void JsonObject::fail(std::string_view key, std::string_view what) const {
  const std::string where = place(key);
  throw data_error(
      absl::StrFormat("%s: %s %s", path_, where.empty() ? "the file" : where, std::string(what)));
}

std::optional<dom::element> JsonObject::find(std::string_view key) {
  known_.push_back(std::string(key));
  dom::element element;
  if (object_.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) {
    return std::nullopt;
  }
  return element;
}

dom::element JsonObject::at(std::string_view key) {
  const auto element = find(key);
  if (!element) fail(key, "is missing");
  return *element;
}

std::string JsonObject::text(std::string_view key) {
  std::string_view value;
  if (at(key).get(value) != simdjson::SUCCESS) fail(key, "is not text");
  return std::string(value);
}

bool JsonObject::boolean(std::string_view key) {
  bool value = false;
  if (at(key).get(value) != simdjson::SUCCESS) fail(key, "is neither true nor false");
  return value;
}

bool JsonObject::boolean(std::string_view key, bool otherwise) {
  return find(key) ? boolean(key) : otherwise;
}

int32_t JsonObject::id(std::string_view key) {
  int64_t value = 0;
  if (at(key).get(value) != simdjson::SUCCESS || value < 0 || value > kMaxTokenId) {
    fail(key, absl::StrFormat("is no id in 0..%d", kMaxTokenId));
  }
  return static_cast<int32_t>(value);
}

dom::array JsonObject::array(std::string_view key) {
  dom::array value;
  if (at(key).get(value) != simdjson::SUCCESS) fail(key, "is not a list");
  return value;
}

JsonObject JsonObject::object(std::string_view key) {
  return JsonObject(path_, place(key), at(key));
}

void JsonObject::must_be_off(std::string_view key) {
  const auto element = find(key);
  if (!element) return;
  std::string_view text;
  bool flag = true;
  dom::array list;
  const bool is_off = (element->get(text) == simdjson::SUCCESS && text.empty()) ||
                      (element->get(flag) == simdjson::SUCCESS && !flag) ||
                      (element->get(list) == simdjson::SUCCESS && list.size() == 0);
  if (!is_off) fail(key, "is not supported here: it must be null");
}

void JsonObject::finish() const {
  std::vector<std::string_view> seen;
  for (const dom::key_value_pair field : object_) {
    if (std::find(known_.begin(), known_.end(), field.key) == known_.end()) {
      fail("", absl::StrFormat("has the unknown key %s", quoted_part(field.key)));
    }
    if (std::find(seen.begin(), seen.end(), field.key) != seen.end()) {
      fail("", absl::StrFormat("has the key %s twice", quoted_part(field.key)));
    }
    seen.push_back(field.key);
  }
}

}  // namespace caravan
