#include "data/utf8.h"

#include <simdjson.h>

#include <algorithm>

namespace caravan {
namespace {

struct Lead {
  int num_following = 0;  // -1: can start no character
  uint8_t low = 0x80;     // what the first following byte may be: excludes overlong forms,
  uint8_t high = 0xBF;    // surrogates and what lies beyond U+10FFFF
};

Lead classify(uint8_t byte) {
  if (byte < 0x80) return {0};
  if (byte < 0xC2) return {-1};
  if (byte < 0xE0) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};
  if (byte < 0xF0) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte < 0xF4) return {3};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {-1};
}

struct Part {
  size_t size = 1;
  bool valid = false;
};

Part next_part(std::string_view text) {
  const Lead lead = classify(static_cast<uint8_t>(text[0]));
  if (lead.num_following < 0) return {1, false};
  for (int i = 1; i <= lead.num_following; ++i) {
    const auto at = static_cast<size_t>(i);
    if (at >= text.size()) return {at, false};
    const auto byte = static_cast<uint8_t>(text[at]);
    const bool ok = i == 1 ? byte >= lead.low && byte <= lead.high : (byte & 0xC0) == 0x80;
    if (!ok) return {at, false};
  }
  return {static_cast<size_t>(lead.num_following) + 1, true};
}

}  // namespace

int64_t replace_invalid_utf8(std::string& text) {
  if (simdjson::validate_utf8(text)) return 0;
  std::string repaired;
  repaired.reserve(text.size() + 64);
  int64_t num_replaced = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const Part part = next_part(rest);
    repaired += part.valid ? rest.substr(0, part.size) : std::string_view("\xEF\xBF\xBD");
    num_replaced += part.valid ? 0 : 1;
    rest.remove_prefix(part.size);
  }
  text = std::move(repaired);
  return num_replaced;
}

size_t line_cut(std::string_view text, size_t limit_bytes) {
  if (text.size() <= limit_bytes) return text.size();
  const size_t newline = text.rfind('\n', limit_bytes - 1);
  if (newline != std::string_view::npos) return newline + 1;
  size_t end = limit_bytes;
  while (limit_bytes - end < 3 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return end;
}

size_t incomplete_tail(std::string_view text) {
  for (size_t size = 1; size <= std::min<size_t>(text.size(), 3); ++size) {
    const std::string_view tail = text.substr(text.size() - size);
    if ((static_cast<uint8_t>(tail[0]) & 0xC0) == 0x80) continue;
    const Part part = next_part(tail);
    return !part.valid && part.size == size &&
                   classify(static_cast<uint8_t>(tail[0])).num_following > 0
               ? size
               : 0;
  }
  return 0;
}

}  // namespace caravan
