// Valid UTF-8 out of any bytes. Nothing else about Unicode.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caravan {

// Replaces what is not UTF-8 by U+FFFD, one for each maximal part of a broken character (Unicode
// 15, section 3.9, "U+FFFD substitution of maximal subparts"); returns how many were put in.
int64_t replace_invalid_utf8(std::string& text);

// The largest end <= limit that does not cut a character in two; limit < text.size().
size_t character_border(std::string_view text, size_t limit);

}  // namespace caravan
