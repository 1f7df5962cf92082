#include "models/hf_json.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxShown = 80;

// Bytes beyond ASCII stay only when nothing is cut: half a character is no text.
std::string printable(std::string_view text) {
  const bool is_cut = text.size() > kMaxShown;
  std::string result;
  for (const char c : text.substr(0, kMaxShown)) {
    const auto byte = static_cast<unsigned char>(c);
    const bool keep = byte >= ' ' && byte != 0x7F && (byte < 0x80 || !is_cut);
    result += keep ? c : '?';
  }
  return is_cut ? result + "..." : result;
}

}  // namespace

std::string in_quotes(std::string_view text) { return "'" + printable(text) + "'"; }

std::string shown(dom::element value) { return printable(simdjson::minify(value)); }

JsonText::JsonText(std::string_view text, size_t max_depth, const std::string& origin) {
  simdjson::error_code error = parser_.allocate(std::max<size_t>(text.size(), 64), max_depth);
  if (error == simdjson::SUCCESS) error = parser_.parse(text.data(), text.size()).get(root_);
  if (error == simdjson::SUCCESS) return;
  throw checkpoint_error(
      absl::StrFormat("%s: not valid JSON: %s", origin, simdjson::error_message(error)));
}

JsonKeys::JsonKeys(const std::string& origin, std::string path, dom::element element)
    : origin_(origin), path_(std::move(path)) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) {
    const std::string key = path_.substr(0, path_.empty() ? 0 : path_.size() - 1);
    throw checkpoint_error(absl::StrFormat("%s: %s is not an object", origin_,
                                           key.empty() ? "the text" : "key " + in_quotes(key)));
  }
  for (const dom::key_value_pair entry : object) {
    if (values_.try_emplace(entry.key, Entry{entry.value}).second) continue;
    fail(entry.key, "once; it is there twice");
  }
}

std::string JsonKeys::description(std::string_view key) const {
  const auto found = values_.find(key);
  const std::string value = found == values_.end() ? "absent" : shown(found->second.value);
  return absl::StrFormat("%s: key %s is %s", origin_, in_quotes(path_ + std::string(key)), value);
}

void JsonKeys::fail(std::string_view key, const std::string& must) const {
  throw checkpoint_error(absl::StrFormat("%s; it must be %s", description(key), must));
}

bool JsonKeys::is_null(std::string_view key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->second.value.is_null();
}

std::optional<dom::element> JsonKeys::take(std::string_view key) {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  found->second.is_taken = true;
  if (found->second.value.is_null()) return std::nullopt;
  return found->second.value;
}

int64_t JsonKeys::integer_of(std::string_view key, dom::element value,
                             const IntegerRange& range) const {
  int64_t integer = 0;
  if (value.get(integer) == simdjson::SUCCESS && integer >= range.min && integer <= range.max) {
    return integer;
  }
  fail(key, absl::StrFormat("an integer from %d to %d", range.min, range.max));
}

std::optional<int64_t> JsonKeys::integer(std::string_view key, IntegerRange range) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  return integer_of(key, *value, range);
}

std::optional<double> JsonKeys::real(std::string_view key, RealRange range) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  double real = 0;
  if (value->get(real) == simdjson::SUCCESS && real >= range.min && real <= range.max) return real;
  fail(key, absl::StrFormat("a number from %g to %g", range.min, range.max));
}

std::optional<bool> JsonKeys::boolean(std::string_view key) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  bool boolean = false;
  if (value->get(boolean) != simdjson::SUCCESS) fail(key, "true or false");
  return boolean;
}

std::optional<std::string> JsonKeys::text(std::string_view key) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) fail(key, "text");
  return std::string(text);
}

dom::array JsonKeys::list_of(std::string_view key, dom::element value, size_t max_count) const {
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS) fail(key, "a list");
  // Not list.size(), which stops counting at 0xFFFFFF.
  if (static_cast<size_t>(std::distance(list.begin(), list.end())) > max_count) {
    fail(key, absl::StrFormat("a list of at most %d entries", max_count));
  }
  return list;
}

std::optional<std::vector<int64_t>> JsonKeys::integers(std::string_view key, IntegerRange range,
                                                       size_t max_count) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  std::vector<int64_t> result;
  for (const dom::element entry : list_of(key, *value, max_count)) {
    result.push_back(integer_of(key, entry, range));
  }
  return result;
}

std::optional<std::vector<std::string>> JsonKeys::texts(std::string_view key, size_t max_count) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  std::vector<std::string> result;
  for (const dom::element entry : list_of(key, *value, max_count)) {
    std::string_view text;
    if (entry.get(text) != simdjson::SUCCESS) fail(key, "a list of texts");
    result.emplace_back(text);
  }
  return result;
}

std::optional<JsonKeys> JsonKeys::object(std::string_view key) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  return JsonKeys(origin_, path_ + std::string(key) + ".", *value);
}

std::vector<std::string> JsonKeys::rest() const {
  std::vector<std::string> keys;
  for (const auto& [key, entry] : values_) {
    if (!entry.is_taken) keys.emplace_back(key);
  }
  return keys;
}

}  // namespace caravan
