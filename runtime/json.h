// Reads JSON that others wrote and nobody vouches for: the one reader of configurations, headers,
// tokenizers and manifests. An object is a set of keys that are taken one by one; what nobody took
// is found at the end. What may have very many entries is iterated over and never made a set of
// keys. Nothing here writes.
//
// The only header that includes simdjson; for .cpp files and headers that no other folder uses.
// No state beyond the objects; each is for one thread at a time. Errors: one line, with the exit
// code that the JsonText was given: "ORIGIN: key 'a.b' is VALUE; it must be ...".
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/error.h"

namespace caravan {

// 'text' for a message: one line, at most some 80 bytes, '?' for what would not be seen.
std::string in_quotes(std::string_view text);
// A value as it stands, for a message; cut like in_quotes().
std::string shown(simdjson::dom::element value);

class JsonKeys;

// A text that is one JSON value, parsed; nested at most so deep. Its elements, keys and texts are
// views: it must outlive them all.
class JsonText {
 public:
  // `origin`, a path in most cases, opens all messages; `code` is that of all errors.
  JsonText(std::string_view text, size_t max_depth, std::string origin, ExitCode code);
  JsonText(const JsonText&) = delete;
  JsonText& operator=(const JsonText&) = delete;

  simdjson::dom::element root() const { return root_; }
  // The whole, which must be an object: as keys, or to iterate over, where keys may be there twice.
  JsonKeys keys() const;
  simdjson::dom::object entries() const;

  [[noreturn]] void fail(const std::string& what) const;  // "ORIGIN: WHAT"

 private:
  std::string origin_;
  ExitCode code_;
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
};

// Both ends are included; an end that is the type's own is no limit.
struct IntegerRange {
  int64_t min = 0;
  int64_t max = INT64_MAX;
};
inline constexpr IntegerRange kAnyInteger = {INT64_MIN, INT64_MAX};
struct RealRange {
  double min = 0;
  double max = 1e300;
};

// An object of few keys, none of them twice. A key whose value is null is as good as absent, except
// for has().
class JsonKeys {
 public:
  // `path` is where it stands in the text: "", or "model.steps[2]". `owner` is what it belongs to,
  // where a path says too little: "tensor 'a'".
  JsonKeys(const JsonText& text, simdjson::dom::element object, std::string path = "",
           std::string owner = "");

  bool has(std::string_view key) const { return find(key) != nullptr; }
  bool is_null(std::string_view key) const;  // there, and null

  // Each of these takes the key. Nothing when it is absent, an error when it is of another kind.
  std::optional<simdjson::dom::element> take(std::string_view key);
  std::optional<int64_t> integer(std::string_view key, IntegerRange range = {});
  std::optional<double> real(std::string_view key, RealRange range = {});
  std::optional<bool> boolean(std::string_view key);
  std::optional<std::string> text(std::string_view key);
  std::optional<std::vector<int64_t>> integers(std::string_view key, IntegerRange range,
                                               size_t max_count = SIZE_MAX);
  std::optional<std::vector<std::string>> texts(std::string_view key, size_t max_count);
  std::optional<JsonKeys> object(std::string_view key);

  // The same, where an absent key is an error, too.
  simdjson::dom::element need(std::string_view key);
  int64_t need_integer(std::string_view key, IntegerRange range = {});
  double need_real(std::string_view key, RealRange range = {});
  bool need_boolean(std::string_view key);
  std::string need_text(std::string_view key);
  std::vector<int64_t> need_integers(std::string_view key, IntegerRange range,
                                     size_t max_count = SIZE_MAX);
  JsonKeys need_object(std::string_view key);
  // A list, and an object of any size, to iterate over; keys of the latter may be there twice.
  simdjson::dom::array need_list(std::string_view key);
  simdjson::dom::object need_entries(std::string_view key);

  // Calls read(JsonKeys) for each element of a list of objects.
  template <typename Read>
  void each(std::string_view key, const Read& read) {
    size_t index = 0;
    for (const simdjson::dom::element element : need_list(key)) read(part(key, index++, element));
  }

  // Keys that nobody took, in order; finish() fails when there is one.
  std::vector<std::string> rest() const;
  void finish() const;

  std::string path_of(std::string_view key) const;   // "model.steps[2].type"
  std::string shown_at(std::string_view key) const;  // its value, or "absent"
  // "ORIGIN: key 'a.b' is VALUE; it must be MUST_BE"
  [[noreturn]] void refuse(std::string_view key, const std::string& must_be) const;
  // "ORIGIN: key 'a.b' WHAT"; without a key, the object itself is meant.
  [[noreturn]] void fail_at(std::string_view key, const std::string& what) const;
  [[noreturn]] void fail(const std::string& what) const;

 private:
  struct Entry {
    std::string_view key;
    simdjson::dom::element value;
    bool is_taken = false;
  };
  const Entry* find(std::string_view key) const;
  JsonKeys part(std::string_view key, size_t index, simdjson::dom::element element) const;
  // `value`, or the error that the key is absent.
  template <typename T>
  T present(std::string_view key, std::optional<T> value, const char* must_be) const;

  const JsonText* text_;
  std::string path_;
  std::string owner_;
  std::vector<Entry> entries_;  // by key
};

}  // namespace caravan
