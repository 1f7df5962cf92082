// Cuts text into the pieces inside which BPE merges: the pre_tokenizer of a tokenizer.json.
// Threads: const members with a Scratch per thread. Errors: data_error, see data/split_regex.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "data/split_regex.h"
#include "data/tokenizer_json.h"

namespace caravan {

class Pretokenizer {
 public:
  // `path` of the tokenizer.json, for messages.
  Pretokenizer(const std::vector<PretokenizerStep>& steps, const std::string& path);

  // Calls `take` with each piece in its order; the view is valid during the call. `text` is valid
  // UTF-8 and not empty; scratch.start() has been called for all of the text that it is a part of.
  using Taker = absl::FunctionRef<void(std::string_view)>;
  void split(std::string_view text, RegexScratch& scratch, Taker take) const;

  // Whether the pieces, one after the other, are the text.
  bool keeps_text() const;

 private:
  struct Step {
    PretokenizerStep spec;
    std::vector<SplitRegex> regex;  // none or one
  };
  void run(size_t step, std::string_view piece, RegexScratch& scratch, Taker take) const;
  void run_split(size_t step, std::string_view piece, RegexScratch& scratch, Taker take) const;

  std::vector<Step> steps_;
};

}  // namespace caravan
