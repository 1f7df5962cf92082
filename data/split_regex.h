// One regular expression of a pre-tokenizer, searched with PCRE2. Patterns are written for
// Oniguruma's Ruby syntax over Unicode; those that the two libraries read differently are refused
// or translated (translate_pattern), never guessed at. Patterns of released tokenizers run at full
// speed; all others look at the clock on the way, which is slower.
//
// Threads: a SplitRegex may be used by any number of threads, each with a Scratch of its own.
// Errors: data_error: a pattern that is not supported; a search that takes too long.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace caravan {

struct TextRange {
  size_t begin = 0;
  size_t end = 0;
};

// What a search needs besides the pattern.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

  // Starts the clock for a text of this size, on the thread that searches: all searches together
  // may compute for 1 s and 5 s per MB, and a pattern that backtracks without end is stopped then.
  void start(size_t text_bytes);

 private:
  friend class SplitRegex;
  bool is_late();  // called at each step of a pattern that could run away

  struct Handles;
  std::unique_ptr<Handles> handles_;
  double deadline_ = 0;  // in seconds of this thread's computing
  unsigned num_steps_ = 0;
};

class SplitRegex {
 public:
  // `where` names file and key in messages.
  SplitRegex(const std::string& pattern, const std::string& where);
  ~SplitRegex();
  SplitRegex(SplitRegex&&) noexcept;

  // The first match at or after `from`, never empty; false when there is none. `text` is valid
  // UTF-8 and `from` at a character.
  bool find(std::string_view text, size_t from, RegexScratch& scratch, TextRange& match) const;

  const std::string& pattern() const { return pattern_; }

 private:
  struct Code;
  std::string pattern_;
  std::string where_;
  std::unique_ptr<Code> code_;
};

// The pattern as PCRE2 reads it. data_error for syntax that is not known to mean the same.
std::string translate_pattern(std::string_view pattern, const std::string& where);

}  // namespace caravan
