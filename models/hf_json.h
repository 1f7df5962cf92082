// JSON that others wrote: what readers of Hugging Face's files share. An object is a set of keys
// that are taken one by one; what nobody took is found at the end. Not for large texts with many
// objects, and nothing here writes.
//
// Errors: checkpoint errors of one line, "ORIGIN: key 'a.b' is VALUE; it must be ...".
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

// 'text' for a message: printable, one line, at most some 80 characters.
std::string in_quotes(std::string_view text);
// A value as it stands, for a message; cut like in_quotes().
std::string shown(simdjson::dom::element value);

// A text that is one JSON value, parsed; nested at most so deep.
class JsonText {
 public:
  JsonText(std::string_view text, size_t max_depth, const std::string& origin);
  simdjson::dom::element root() const { return root_; }

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
};

struct IntegerRange {
  int64_t min = 0;
  int64_t max = INT64_MAX;
};
struct RealRange {
  double min = 0;
  double max = 1e300;
};

// An object. A key whose value is null is as good as absent, except for has(). What it was made of
// must outlive it.
class JsonKeys {
 public:
  // `path` stands before its keys in messages: "", or "text_config.".
  JsonKeys(const std::string& origin, std::string path, simdjson::dom::element object);

  bool has(std::string_view key) const { return values_.count(key) > 0; }
  bool is_null(std::string_view key) const;  // there, and null
  const std::string& path() const { return path_; }

  // Each of these takes the key; nothing when it is absent.
  std::optional<simdjson::dom::element> take(std::string_view key);
  std::optional<int64_t> integer(std::string_view key, IntegerRange range = {});
  std::optional<double> real(std::string_view key, RealRange range = {});
  std::optional<bool> boolean(std::string_view key);
  std::optional<std::string> text(std::string_view key);
  std::optional<std::vector<int64_t>> integers(std::string_view key, IntegerRange range,
                                               size_t max_count);
  std::optional<std::vector<std::string>> texts(std::string_view key, size_t max_count);
  std::optional<JsonKeys> object(std::string_view key);

  // "ORIGIN: key 'a.b' is VALUE", the beginning of messages.
  std::string description(std::string_view key) const;
  // Keys that nobody took, in order.
  std::vector<std::string> rest() const;
  [[noreturn]] void fail(std::string_view key, const std::string& must) const;

 private:
  struct Entry {
    simdjson::dom::element value;
    bool is_taken = false;
  };
  int64_t integer_of(std::string_view key, simdjson::dom::element value,
                     const IntegerRange& range) const;
  simdjson::dom::array list_of(std::string_view key, simdjson::dom::element value,
                               size_t max_count) const;

  std::string origin_;
  std::string path_;
  std::map<std::string_view, Entry, std::less<>> values_;
};

}  // namespace caravan
