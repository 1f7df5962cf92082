#include "launch/reference_logits.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan {

ReferenceLogits::ReferenceLogits(const std::string& path, const ModelConfig& model)
    : file_(path), vocab_size_(model.vocab_size) {
  const int64_t vocab_size = model.vocab_size;
  for (const char* name : {"input_ids", "logits"}) {
    if (file_.has(name)) continue;
    throw checkpoint_error(absl::StrFormat(
        "%s: has no array '%s'; save it with numpy.savez(path, input_ids=..., logits=...)", path,
        name));
  }
  const Shape tokens = file_.header("input_ids").shape;
  Shape expected = tokens;
  expected.push_back(vocab_size);
  const Shape logits = file_.header("logits").shape;
  if (tokens.empty() || tokens.size() > 2 || logits != expected || num_elements(tokens) < 1) {
    throw checkpoint_error(absl::StrFormat(
        "%s: input_ids %s and logits %s do not fit a vocabulary of %d; they must be (T) and (T, V),"
        " or (B, T) and (B, T, V)",
        path, to_string(tokens), to_string(logits), vocab_size));
  }
  sequence_len_ = tokens.back();
  if (sequence_len_ > model.max_position_embeddings) {
    throw checkpoint_error(absl::StrFormat(
        "%s: has sequences of %d tokens, the model is for %d (max_position_embeddings); make it "
        "with shorter ones",
        path, sequence_len_, model.max_position_embeddings));
  }
  for (const int64_t id : file_.read_integers("input_ids")) {
    if (id < 0 || id >= vocab_size) {
      throw checkpoint_error(
          absl::StrFormat("%s: input_ids has %d, the vocabulary %d tokens", path, id, vocab_size));
    }
    ids_.push_back(static_cast<int32_t>(id));
  }
}

LogitsDifference ReferenceLogits::compare(LogitsRun& run) {
  LogitsDifference worst;
  const int64_t columns = run.num_columns();
  std::vector<float> row(static_cast<size_t>(vocab_size_));
  std::vector<float> expected(static_cast<size_t>(sequence_len_ * columns));
  for (int64_t first = 0; first < num_tokens(); first += sequence_len_) {
    for (int64_t t = 0; t < sequence_len_; ++t) {
      file_.read_floats("logits", (first + t) * vocab_size_, row);
      std::copy_n(row.begin() + run.first_column(), columns, expected.begin() + t * columns);
    }
    const std::vector<float> made = run.compute(
        std::span(ids_).subspan(static_cast<size_t>(first), static_cast<size_t>(sequence_len_)));
    LogitsDifference difference = compare_logits(run.session().world(), made, expected, columns);
    difference.token += first;
    difference.largest_logit = std::max(difference.largest_logit, worst.largest_logit);
    const double largest_logit = difference.largest_logit;
    if (difference.largest >= worst.largest) worst = difference;
    worst.largest_logit = largest_logit;
  }
  return worst;
}

}  // namespace caravan
