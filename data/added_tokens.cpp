#include "data/added_tokens.h"

#include <algorithm>

namespace caravan {
namespace {

// What \w is in Unicode's annex 18: Alphabetic, marks, decimal digits, connectors and joiners.
// Alphabetic beyond letters, marks and letter numbers are circled and squared letters only.
constexpr const char* kWordPattern =
    "[\\p{L}\\p{M}\\p{Nl}\\p{Nd}\\p{Pc}\u200C\u200D\u24B6-\u24E9\U0001F130-\U0001F149"
    "\U0001F150-\U0001F169\U0001F170-\U0001F189]";

bool continues(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

std::string_view first_character(std::string_view text) {
  size_t size = std::min<size_t>(text.size(), 1);
  while (size < text.size() && continues(text[size])) ++size;
  return text.substr(0, size);
}

std::string_view last_character(std::string_view text) {
  size_t begin = text.size() - std::min<size_t>(text.size(), 1);
  while (begin > 0 && continues(text[begin])) --begin;
  return text.substr(begin);
}

bool is_white_space(std::string_view character) {
  if (character.size() == 1) {
    return character[0] == ' ' || (character[0] >= '\t' && character[0] <= '\r');
  }
  if (character.size() == 3 && character.starts_with("\xE2\x80")) {
    const auto last = static_cast<uint8_t>(character[2]);  // U+2000..200A, 2028, 2029, 202F
    return last <= 0x8A || last == 0xA8 || last == 0xA9 || last == 0xAF;
  }
  return character == "\u0085" || character == "\u00A0" || character == "\u1680" ||
         character == "\u205F" || character == "\u3000";
}

size_t space_before(std::string_view text, size_t at) {
  while (at > 0) {
    const std::string_view character = last_character(text.substr(0, at));
    if (!is_white_space(character)) break;
    at -= character.size();
  }
  return at;
}

size_t space_after(std::string_view text, size_t at) {
  while (at < text.size()) {
    const std::string_view character = first_character(text.substr(at));
    if (!is_white_space(character)) break;
    at += character.size();
  }
  return at;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), word_(kWordPattern, "word characters") {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    add(tokens_[i].normalized ? normalized_ : raw_, static_cast<int32_t>(i));
  }
  for (Trie* trie : {&raw_, &normalized_}) {
    if (trie->nodes[0].children.size() == 1) {
      trie->only_start = std::string(1, trie->nodes[0].children[0].first);
    }
  }
}

void AddedTokens::add(Trie& trie, int32_t token) const {
  const std::string& content = tokens_[static_cast<size_t>(token)].content;
  trie.starts[static_cast<uint8_t>(content[0])] = true;
  int32_t node = 0;
  for (const char byte : content) {
    int32_t next = child(trie.nodes[static_cast<size_t>(node)], byte);
    if (next < 0) {
      next = static_cast<int32_t>(trie.nodes.size());
      auto& children = trie.nodes[static_cast<size_t>(node)].children;
      children.insert(std::lower_bound(children.begin(), children.end(), std::pair(byte, 0)),
                      {byte, next});
      trie.nodes.emplace_back();
    }
    node = next;
  }
  trie.nodes[static_cast<size_t>(node)].token = token;
}

int32_t AddedTokens::child(const Node& node, char byte) {
  const auto found =
      std::lower_bound(node.children.begin(), node.children.end(), std::pair(byte, 0));
  return found != node.children.end() && found->first == byte ? found->second : -1;
}

bool AddedTokens::find(const Trie& trie, std::string_view text, size_t from, Match& match) {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!trie.only_start.empty()) {
      begin = text.find(trie.only_start[0], begin);
      if (begin == std::string_view::npos) return false;
    } else if (!trie.starts[static_cast<uint8_t>(text[begin])]) {
      continue;
    }
    match.token = -1;
    int32_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      node = child(trie.nodes[static_cast<size_t>(node)], text[i]);
      if (node < 0) break;
      const int32_t token = trie.nodes[static_cast<size_t>(node)].token;
      if (token >= 0) match = {begin, i + 1, token};
    }
    if (match.token >= 0) return true;
  }
  return false;
}

bool AddedTokens::is_word(std::string_view character) const {
  RegexScratch scratch;
  scratch.start(character.size());
  TextRange range;
  return word_.find(character, 0, scratch, range);
}

bool AddedTokens::stands_alone(std::string_view text, const Match& match) const {
  return !is_word(last_character(text.substr(0, match.begin))) &&
         !is_word(first_character(text.substr(match.end)));
}

void AddedTokens::split(const Trie& trie, std::string_view text, SpecialTokens special,
                        Taker take) const {
  if (trie.nodes.size() == 1) return take(text, -1);
  size_t done = 0;
  size_t from = 0;
  for (Match match; find(trie, text, from, match);) {
    const AddedToken& token = tokens_[static_cast<size_t>(match.token)];
    from = match.end;
    if (token.special && special == SpecialTokens::skip) continue;
    if (token.single_word && !stands_alone(text, match)) continue;
    // White space that the token before has taken stays with it.
    const size_t begin =
        token.lstrip ? std::max(space_before(text, match.begin), done) : match.begin;
    if (done < begin) take(text.substr(done, begin - done), -1);
    take({}, token.id);
    done = token.rstrip ? space_after(text, match.end) : match.end;
  }
  if (done < text.size()) take(text.substr(done), -1);
}

void AddedTokens::split(std::string_view text, SpecialTokens special, Taker take) const {
  split(raw_, text, special, [&](std::string_view piece, int32_t id) {
    if (id >= 0) return take({}, id);
    split(normalized_, piece, special, take);
  });
}

bool AddedTokens::keeps_text() const {
  return std::none_of(tokens_.begin(), tokens_.end(),
                      [](const AddedToken& token) { return token.lstrip || token.rstrip; });
}

}  // namespace caravan
