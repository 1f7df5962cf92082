// A JSON object of a file that is not trusted, read key by key with messages that name file and
// key. Keys that nobody asked for are errors at finish(), and so are keys that stand there twice.
// Errors: data_error, one line.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/error.h"

namespace caravan {

class JsonObject {
 public:
  // `where` is the place of the object in the file ("model"), "" for the whole.
  JsonObject(const std::string& path, const std::string& where, simdjson::dom::element element);

  [[noreturn]] void fail(std::string_view key, std::string_view what) const;

  // Null counts as absent.
  std::optional<simdjson::dom::element> find(std::string_view key);
  simdjson::dom::element at(std::string_view key);

  std::string text(std::string_view key);
  bool boolean(std::string_view key);
  bool boolean(std::string_view key, bool otherwise);
  int32_t id(std::string_view key);  // in [0, kMaxTokenId]
  simdjson::dom::array array(std::string_view key);
  JsonObject object(std::string_view key);

  // The key is known and does not matter.
  void ignore(std::string_view key) { known_.push_back(std::string(key)); }
  // The key must be absent, null or what does nothing: false, "" or an empty list.
  void must_be_off(std::string_view key);
  void finish() const;

  std::string place(std::string_view key) const;  // "model.vocab"
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::string where_;
  simdjson::dom::object object_;
  std::vector<std::string> known_;
};

inline constexpr int32_t kMaxTokenId = (8 << 20) - 1;

// Text of a file in a message: at most some 40 characters, without control characters.
std::string quoted_part(std::string_view text);

}  // namespace caravan
