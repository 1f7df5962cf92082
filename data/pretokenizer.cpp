#include "data/pretokenizer.h"

#include <algorithm>

namespace caravan {

Pretokenizer::Pretokenizer(const std::vector<PretokenizerStep>& steps, const std::string& path) {
  for (const PretokenizerStep& spec : steps) {
    steps_.push_back({spec, {}});
    if (spec.kind == PretokenizerKind::split) {
      steps_.back().regex.emplace_back(spec.pattern, path + ": " + spec.where);
    }
  }
}

bool Pretokenizer::keeps_text() const {
  return std::none_of(steps_.begin(), steps_.end(), [](const Step& step) {
    return step.spec.removes || step.spec.kind == PretokenizerKind::prefix_space;
  });
}

void Pretokenizer::split(std::string_view text, RegexScratch& scratch, Taker take) const {
  run(0, text, scratch, take);
}

void Pretokenizer::run(size_t step, std::string_view piece, RegexScratch& scratch,
                       Taker take) const {
  if (step == steps_.size()) return take(piece);
  if (steps_[step].spec.kind == PretokenizerKind::split) {
    return run_split(step, piece, scratch, take);
  }
  if (piece.starts_with(' ')) return run(step + 1, piece, scratch, take);
  run(step + 1, " " + std::string(piece), scratch, take);
}

void Pretokenizer::run_split(size_t step, std::string_view piece, RegexScratch& scratch,
                             Taker take) const {
  const SplitRegex& regex = steps_[step].regex.front();
  size_t done = 0;
  for (TextRange match; regex.find(piece, done, scratch, match); done = match.end) {
    if (match.begin > done) {
      run(step + 1, piece.substr(done, match.begin - done), scratch, take);
    }
    if (steps_[step].spec.removes) continue;
    run(step + 1, piece.substr(match.begin, match.end - match.begin), scratch, take);
  }
  if (done < piece.size()) run(step + 1, piece.substr(done), scratch, take);
}

}  // namespace caravan
