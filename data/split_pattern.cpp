// translate_pattern: reads a pattern character by character. What Oniguruma (Ruby syntax) and PCRE2
// (UTF, UCP) understand alike is passed on, white space is spelled out, all else is refused.
#include <algorithm>
#include <array>
#include <cctype>

#include "data/split_regex.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
constexpr int kMaxNesting = 64;
constexpr int kMaxRepeat = 1000;
// Unicode's White_Space, which is Oniguruma's \s; PCRE2's own has U+180E besides.
constexpr std::string_view kSpaceItems = R"(\t-\r\x{85}\p{Z})";
constexpr std::array<std::string_view, 30> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",
    "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl"};
constexpr std::array<std::string_view, 10> kScripts = {"Han",    "Hiragana", "Katakana", "Hangul",
                                                       "Latin",  "Greek",    "Cyrillic", "Arabic",
                                                       "Hebrew", "Thai"};

bool contains(const auto& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : rest_(pattern), where_(where) {}

  std::string run() {
    while (!rest_.empty()) step();
    if (!case_groups_.empty()) fail("a group that is not closed");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string what) const {
    for (char& c : what) {
      if (c < ' ' || c > '~') c = '?';  // halves of characters, and ends of lines
    }
    throw data_error(
        absl::StrFormat("%s: the pattern has %s, which is not supported", where_, what));
  }

  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }

  char next() {
    if (rest_.empty()) fail("an end too early");
    const char c = rest_.front();
    rest_.remove_prefix(1);
    return c;
  }

  void step() {
    const char c = next();
    switch (c) {
      case '\\':
        return escape(/*in_class=*/false);
      case '[':
        return character_class();
      case '(':
        return open_group();
      case ')':
        if (case_groups_.empty()) fail("a ')' too many");
        case_groups_.pop_back();
        out_ += c;
        return;
      case '*':
      case '+':
      case '?':
        out_ += c;
        if (rest_.starts_with('?') || rest_.starts_with('+')) out_ += next();
        return refuse_quantifier();
      case '{':
        return repeat();
      case '^':
      case '$':
      case '}':
      case ']':
        fail(std::string("a bare '") + c + "'");
      default:
        return literal(c);
    }
  }

  void literal(char c) {
    if (is_caseless() && c != '|' && c != '\'') check_caseless(c);
    last_letter_ = c;
    out_ += c;
  }

  bool is_caseless() const { return !case_groups_.empty() && case_groups_.back(); }

  // Full case folding turns "ss" into one character and so on: Oniguruma does that, PCRE2 does not.
  void check_caseless(char c) const {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!is_letter) fail("(?i: with other characters than letters of ASCII and '");
    const char before = static_cast<char>(std::tolower(last_letter_));
    const auto now = static_cast<char>(std::tolower(c));
    const bool folds = (before == 's' && (now == 's' || now == 't')) ||
                       (before == 'f' && (now == 'f' || now == 'i' || now == 'l'));
    if (folds) fail("(?i: with letters that other letters fold to");
  }

  void open_group() {
    if (case_groups_.size() >= kMaxNesting) fail("groups in groups in groups");
    bool caseless = is_caseless();
    out_ += '(';
    if (take("?i:")) {
      caseless = true;
      out_ += "?i:";
    } else if (rest_.starts_with('?')) {
      constexpr std::array<std::string_view, 6> kKinds = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
      const auto* const kind = std::find_if(
          kKinds.begin(), kKinds.end(), [&](std::string_view k) { return rest_.starts_with(k); });
      if (kind == kKinds.end()) fail("a group (?" + std::string(rest_.substr(1, 1)));
      take(*kind);
      out_ += *kind;
    } else if (rest_.starts_with('*')) {
      fail("(*");
    } else {
      out_ += "?:";
    }
    case_groups_.push_back(caseless);
    last_letter_ = 0;
  }

  int number() {
    int value = -1;
    while (!rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') {
      value = std::max(value, 0) * 10 + (next() - '0');
      if (value > kMaxRepeat) fail("a repeat of more than 1000");
    }
    return value;
  }

  void repeat() {
    const int low = number();
    if (low < 0) fail("a bare '{'");
    out_ += absl::StrFormat("{%d", low);
    if (take(",")) {
      const int high = number();
      out_ += high < 0 ? "," : absl::StrFormat(",%d", high);
    }
    if (!take("}")) fail("a bare '{'");
    out_ += '}';
    if (rest_.starts_with('?')) fail("a quantifier after '}'");
    refuse_quantifier();
  }

  // Ruby repeats what is repeated; PCRE2 reads some of these as possessive.
  void refuse_quantifier() const {
    for (const char c : {'*', '+', '?', '{'}) {
      if (rest_.starts_with(c)) fail("a quantifier of a quantifier");
    }
  }

  // What stands after a backslash. Returns whether it is a set of characters.
  bool escape_item(bool in_class) {
    const char c = next();
    switch (c) {
      case 's':
        out_ += in_class ? std::string(kSpaceItems) : "[" + std::string(kSpaceItems) + "]";
        return true;
      case 'S':
        out_ += in_class ? R"(\P{White_Space})" : "[^" + std::string(kSpaceItems) + "]";
        return true;
      case 'd':
        out_ += R"(\p{Nd})";
        return true;
      case 'D':
        out_ += R"(\P{Nd})";
        return true;
      case 'p':
      case 'P':
        property(c);
        return true;
      case 'r':
      case 'n':
      case 't':
        out_ += std::string("\\") + c;
        return false;
      default:
        if (std::ispunct(static_cast<unsigned char>(c)) == 0) fail(std::string("\\") + c);
        out_ += std::string("\\") + c;
        return false;
    }
  }

  void escape(bool in_class) {
    if (is_caseless()) fail("(?i: with a backslash");
    escape_item(in_class);
    last_letter_ = 0;
  }

  void property(char c) {
    if (!take("{")) fail("\\p without a name in braces");
    const size_t end = rest_.find('}');
    if (end == std::string_view::npos) fail("\\p without '}'");
    const std::string name(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    if (contains(kCategories, name)) {
      out_ += absl::StrFormat("\\%c{%s}", c, name);
    } else if (contains(kScripts, name)) {
      out_ += absl::StrFormat("\\%c{sc:%s}", c, name);  // alone it would be Script_Extensions
    } else {
      fail("\\p{...} with another name than a general category or a common script");
    }
  }

  void character_class() {
    out_ += take("^") ? "[^" : "[";
    if (rest_.starts_with(']')) fail("a class that begins with ']'");
    bool after_set = false;
    while (!take("]")) {
      if (rest_.starts_with("&&") || rest_.starts_with('[')) fail("a class in a class");
      const char c = next();
      if (c == '-' && after_set && !rest_.starts_with(']')) fail("a range that begins with a set");
      if (c == '\\') {
        const bool is_range = out_.ends_with('-') && !out_.ends_with("\\-");
        after_set = escape_item(/*in_class=*/true);
        if (after_set && is_range) fail("a range that ends with a set");
      } else {
        if (is_caseless()) check_caseless(c);
        after_set = false;
        out_ += c;
      }
      last_letter_ = 0;
    }
    out_ += ']';
  }

  std::string_view rest_;
  const std::string& where_;
  std::string out_;
  std::vector<bool> case_groups_;  // of each open group: whether case is ignored in it
  char last_letter_ = 0;
};

}  // namespace

std::string translate_pattern(std::string_view pattern, const std::string& where) {
  if (pattern.empty() || pattern.size() > kMaxPatternBytes) {
    throw data_error(where + ": the pattern is empty or has more than 16 KiB");
  }
  return Translator(pattern, where).run();
}

}  // namespace caravan
