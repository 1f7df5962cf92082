#include "runtime/json.h"

#include <algorithm>
#include <limits>

namespace caravan {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxShown = 80;

// Bytes beyond ASCII are kept, so it is cut between characters: half a one is no text.
std::string printable(std::string_view text) {
  size_t size = std::min(text.size(), kMaxShown);
  const auto is_inside = [&] { return (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80; };
  for (int i = 0; i < 3 && size < text.size() && is_inside(); ++i) --size;
  std::string result(text.substr(0, size));
  const auto is_control = [](unsigned char c) { return c < ' ' || c == 0x7F; };
  std::replace_if(result.begin(), result.end(), is_control, '?');
  return size < text.size() ? result + "..." : result;
}

// As JSON, up to where it is long enough: values may be as large as the text.
void append_shown(dom::element value, std::string& text) {
  dom::array list;
  dom::object object;
  if (value.get(list) == simdjson::SUCCESS) {
    const char* before = "[";
    for (const dom::element entry : list) {
      if (text.size() > kMaxShown) return;
      text += std::exchange(before, ",");
      append_shown(entry, text);
    }
    text += *before == '[' ? "[]" : "]";
  } else if (value.get(object) == simdjson::SUCCESS) {
    const char* before = "{";
    for (const dom::key_value_pair entry : object) {
      if (text.size() > kMaxShown) return;
      text.append(std::exchange(before, ",")).append("\"").append(entry.key).append("\":");
      append_shown(entry.value, text);
    }
    text += *before == '{' ? "{}" : "}";
  } else {
    text += simdjson::minify(value);
  }
}

std::string limits_of(const IntegerRange& range) {
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  std::string text;
  if (range.min != kMin) text += absl::StrFormat(" from %d", range.min);
  if (range.max != kMax) text += absl::StrFormat(" to %d", range.max);
  return text;
}

bool get_integer(dom::element value, const IntegerRange& range, int64_t& integer) {
  return value.get(integer) == simdjson::SUCCESS && integer >= range.min && integer <= range.max;
}

bool has_more_than(dom::array list, size_t max_count) {
  if (max_count == SIZE_MAX) return false;
  // Not list.size(), which stops counting at 0xFFFFFF.
  return static_cast<size_t>(std::distance(list.begin(), list.end())) > max_count;
}

std::string list_of(const std::string& what, size_t max_count) {
  if (max_count == SIZE_MAX) return "a list of " + what;
  return absl::StrFormat("a list of at most %d %s", max_count, what);
}

}  // namespace

std::string in_quotes(std::string_view text) { return "'" + printable(text) + "'"; }

std::string shown(dom::element value) {
  std::string text;
  append_shown(value, text);
  return printable(text);
}

JsonText::JsonText(std::string_view text, size_t max_depth, std::string origin, ExitCode code)
    : origin_(std::move(origin)), code_(code) {
  simdjson::error_code error = parser_.allocate(std::max<size_t>(text.size(), 64), max_depth);
  if (error == simdjson::SUCCESS) error = parser_.parse(text.data(), text.size()).get(root_);
  if (error == simdjson::SUCCESS) return;
  fail(absl::StrFormat("not valid JSON: %s", simdjson::error_message(error)));
}

JsonKeys JsonText::keys() const { return JsonKeys(*this, root_); }

dom::object JsonText::entries() const {
  dom::object object;
  if (root_.get(object) != simdjson::SUCCESS) fail("the file is not an object");
  return object;
}

void JsonText::fail(const std::string& what) const {
  throw Error(code_, absl::StrFormat("%s: %s", origin_, what));
}

JsonKeys::JsonKeys(const JsonText& text, dom::element element, std::string path, std::string owner)
    : text_(&text), path_(std::move(path)), owner_(std::move(owner)) {
  dom::object object;
  if (element.get(object) != simdjson::SUCCESS) fail("is not an object");
  entries_.reserve(object.size());
  for (const dom::key_value_pair entry : object) entries_.push_back({entry.key, entry.value});
  std::ranges::sort(entries_, {}, &Entry::key);
  const auto twice = std::ranges::adjacent_find(entries_, {}, &Entry::key);
  if (twice != entries_.end()) fail(absl::StrFormat("has the key %s twice", in_quotes(twice->key)));
}

const JsonKeys::Entry* JsonKeys::find(std::string_view key) const {
  const auto found = std::ranges::lower_bound(entries_, key, {}, &Entry::key);
  return found != entries_.end() && found->key == key ? &*found : nullptr;
}

std::string JsonKeys::path_of(std::string_view key) const {
  return path_ + (path_.empty() ? "" : ".") + std::string(key);
}

std::string JsonKeys::shown_at(std::string_view key) const {
  const Entry* const entry = find(key);
  return entry == nullptr ? "absent" : shown(entry->value);
}

void JsonKeys::refuse(std::string_view key, const std::string& must_be) const {
  fail_at(key, absl::StrFormat("is %s; it must be %s", shown_at(key), must_be));
}

void JsonKeys::fail_at(std::string_view key, const std::string& what) const {
  const std::string owner = owner_.empty() ? "" : owner_ + ": ";
  text_->fail(absl::StrFormat("%skey %s %s", owner, in_quotes(path_of(key)), what));
}

void JsonKeys::fail(const std::string& what) const {
  std::string subject = owner_.empty() ? "the file" : owner_;
  if (!path_.empty()) subject = (owner_.empty() ? "" : owner_ + ": ") + "key " + in_quotes(path_);
  text_->fail(absl::StrFormat("%s %s", subject, what));
}

bool JsonKeys::is_null(std::string_view key) const {
  const Entry* const entry = find(key);
  return entry != nullptr && entry->value.is_null();
}

std::optional<dom::element> JsonKeys::take(std::string_view key) {
  const Entry* const found = find(key);
  if (found == nullptr) return std::nullopt;
  entries_[static_cast<size_t>(found - entries_.data())].is_taken = true;
  if (found->value.is_null()) return std::nullopt;
  return found->value;
}

std::optional<int64_t> JsonKeys::integer(std::string_view key, IntegerRange range) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  int64_t integer = 0;
  if (!get_integer(*value, range, integer)) refuse(key, "an integer" + limits_of(range));
  return integer;
}

std::optional<double> JsonKeys::real(std::string_view key, RealRange range) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  double real = 0;
  if (value->get(real) == simdjson::SUCCESS && real >= range.min && real <= range.max) return real;
  refuse(key, absl::StrFormat("a number from %g to %g", range.min, range.max));
}

std::optional<bool> JsonKeys::boolean(std::string_view key) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  bool boolean = false;
  if (value->get(boolean) != simdjson::SUCCESS) refuse(key, "true or false");
  return boolean;
}

std::optional<std::string> JsonKeys::text(std::string_view key) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) refuse(key, "text");
  return std::string(text);
}

std::optional<std::vector<int64_t>> JsonKeys::integers(std::string_view key, IntegerRange range,
                                                       size_t max_count) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  const auto refuse_it = [&] { refuse(key, list_of("integers" + limits_of(range), max_count)); };
  dom::array list;
  if (value->get(list) != simdjson::SUCCESS || has_more_than(list, max_count)) refuse_it();
  std::vector<int64_t> result;
  for (const dom::element entry : list) {
    if (!get_integer(entry, range, result.emplace_back())) refuse_it();
  }
  return result;
}

std::optional<std::vector<std::string>> JsonKeys::texts(std::string_view key, size_t max_count) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  const auto refuse_it = [&] { refuse(key, list_of("texts", max_count)); };
  dom::array list;
  if (value->get(list) != simdjson::SUCCESS || has_more_than(list, max_count)) refuse_it();
  std::vector<std::string> result;
  for (const dom::element entry : list) {
    std::string_view text;
    if (entry.get(text) != simdjson::SUCCESS) refuse_it();
    result.emplace_back(text);
  }
  return result;
}

std::optional<JsonKeys> JsonKeys::object(std::string_view key) {
  const auto value = take(key);
  if (!value) return std::nullopt;
  if (!value->is_object()) refuse(key, "an object");
  return JsonKeys(*text_, *value, path_of(key), owner_);
}

template <typename T>
T JsonKeys::present(std::string_view key, std::optional<T> value, const char* must_be) const {
  if (!value) refuse(key, must_be);
  return *std::move(value);
}

dom::element JsonKeys::need(std::string_view key) { return present(key, take(key), "there"); }

int64_t JsonKeys::need_integer(std::string_view key, IntegerRange range) {
  return present(key, integer(key, range), "an integer");
}

double JsonKeys::need_real(std::string_view key, RealRange range) {
  return present(key, real(key, range), "a number");
}

bool JsonKeys::need_boolean(std::string_view key) {
  return present(key, boolean(key), "true or false");
}

std::string JsonKeys::need_text(std::string_view key) { return present(key, text(key), "text"); }

std::vector<int64_t> JsonKeys::need_integers(std::string_view key, IntegerRange range,
                                             size_t max_count) {
  return present(key, integers(key, range, max_count), "a list of integers");
}

JsonKeys JsonKeys::need_object(std::string_view key) {
  return present(key, object(key), "an object");
}

dom::array JsonKeys::need_list(std::string_view key) {
  const auto value = take(key);
  dom::array list;
  if (!value || value->get(list) != simdjson::SUCCESS) refuse(key, "a list");
  return list;
}

dom::object JsonKeys::need_entries(std::string_view key) {
  const auto value = take(key);
  dom::object object;
  if (!value || value->get(object) != simdjson::SUCCESS) refuse(key, "an object");
  return object;
}

JsonKeys JsonKeys::part(std::string_view key, size_t index, dom::element element) const {
  return JsonKeys(*text_, element, absl::StrFormat("%s[%d]", path_of(key), index), owner_);
}

std::vector<std::string> JsonKeys::rest() const {
  std::vector<std::string> keys;
  for (const Entry& entry : entries_) {
    if (!entry.is_taken) keys.emplace_back(entry.key);
  }
  return keys;
}

void JsonKeys::finish() const {
  const std::vector<std::string> unknown = rest();
  if (!unknown.empty()) fail("has the unknown key " + in_quotes(unknown.front()));
}

}  // namespace caravan
