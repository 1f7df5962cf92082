// The alphabet in which byte-level BPE writes bytes as printable characters: 33..126, 161..172 and
// 174..255 stand for themselves, the other 68 in their order for U+0100, U+0101, ...
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace caravan {

// "Ġthe" to " the"; nothing when a character is none of the alphabet. `name` is valid UTF-8.
std::optional<std::string> bytes_of_alphabet(std::string_view name);

// " the" to "Ġthe".
std::string alphabet_of_bytes(std::string_view bytes);

}  // namespace caravan
