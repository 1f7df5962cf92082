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

  // Starts the clock for a text of this size, on the thread that searches. There are 2 s of
  // computing in hand, and what is spent comes back at 2 s per MB that searches get past, in this
  // text or the next: a pattern that backtracks without end is stopped after some seconds, be it
  // in one long text or in many short ones. After such an error the account begins anew.
  void start(size_t text_bytes);
  void finish();  // stops it, after a text without an error

 private:
  friend class SplitRegex;
  // Called at each step of a pattern that could run away, with the place in the text.
  bool is_late(size_t position);

  struct Handles;
  std::unique_ptr<Handles> handles_;
  double started_ = 0;    // in seconds of the thread's computing
  double allowance_ = 0;  // in seconds from then on, or left after finish()
  size_t work_ = 0;       // since the last look at the clock
  size_t position_ = 0;   // of the last step
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
