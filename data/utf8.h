// Valid UTF-8 out of any bytes, and cuts that keep it valid. Nothing else about Unicode.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace caravan {

// Replaces what is not UTF-8 by U+FFFD, one for each maximal part of a broken character (Unicode
// 15, section 3.9, "U+FFFD substitution of maximal subparts"); returns how many were put in.
int64_t replace_invalid_utf8(std::string& text);

// How much of a text to take when at most `limit_bytes` (>= 4) are wanted: all of it, or up to the
// last newline in reach, or, where a line is longer than that, whole characters.
size_t line_cut(std::string_view text, size_t limit_bytes);

// How many bytes at the end (0 to 3) are the beginning of a character that further bytes could
// complete.
size_t incomplete_tail(std::string_view text);

}  // namespace caravan
