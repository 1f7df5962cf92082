// A hash map from text, looked up by std::string_view without a copy. (Debian's Abseil has a
// string_view of its own, and knows only how to hash that.)
#pragma once

#include <functional>
#include <string_view>

#include "absl/container/flat_hash_map.h"

namespace caravan {

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

// `Key` is std::string, or std::string_view of text that outlives the map.
template <typename Key, typename Value>
using TextMap = absl::flat_hash_map<Key, Value, TextHash, std::equal_to<>>;

}  // namespace caravan
