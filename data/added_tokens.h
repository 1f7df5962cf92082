// Finds added tokens in raw text, as tokenizers that read tokenizer.json do: leftmost, then
// longest; those that are not `normalized` first, the others in what is left between them. Threads:
// immutable.
#pragma once

#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "data/split_regex.h"
#include "data/tokenizer.h"
#include "data/tokenizer_json.h"

namespace caravan {

class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Cuts `text` into pieces in their order: plain text with id -1, or a token. Special tokens are
  // plain text when `special` is skip.
  using Taker = absl::FunctionRef<void(std::string_view, int32_t id)>;
  void split(std::string_view text, SpecialTokens special, Taker take) const;

  bool keeps_text() const;  // no token takes white space around it

 private:
  struct Node {
    std::vector<std::pair<char, int32_t>> children;  // by byte
    int32_t token = -1;                              // number of the token that ends here
  };
  // Tokens as a tree of bytes.
  struct Trie {
    std::vector<Node> nodes = std::vector<Node>(1);
    std::vector<bool> starts = std::vector<bool>(256);  // bytes that a token begins with
    std::string only_start;                             // the one such byte, if there is one
  };
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t token = -1;
  };

  void add(Trie& trie, int32_t token) const;
  static int32_t child(const Node& node, char byte);
  static bool find(const Trie& trie, std::string_view text, size_t from, Match& match);
  bool is_word(std::string_view character) const;
  bool stands_alone(std::string_view text, const Match& match) const;
  void split(const Trie& trie, std::string_view text, SpecialTokens special, Taker take) const;

  std::vector<AddedToken> tokens_;
  SplitRegex word_;  // one letter, digit or the like
  Trie raw_;
  Trie normalized_;
};

}  // namespace caravan
