// The known name that a mistyped one most likely meant, and text of users made safe to print.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

// Insertions, deletions, substitutions and swaps of neighbours that turn `from` into `to`.
int edit_distance(std::string_view from, std::string_view to);

// The nearest of `known`, or nothing when none is near: more than a third of the letters differ.
std::optional<std::string> nearest_name(std::string_view name,
                                        const std::vector<std::string>& known);

// At most 60 bytes of `text`, with control characters as '?': for one-line messages.
std::string printable(std::string_view text);

}  // namespace caravan
