// Logits that another program gave for some tokens, in a .npz file: `input_ids` (T) or (B, T),
// integers, and `logits` (T, V) or (B, T, V), floating point.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/npz.h"
#include "launch/logits_run.h"

namespace caravan {

class ReferenceLogits {
 public:
  // Checkpoint errors: shapes or ids do not fit the model or each other.
  ReferenceLogits(const std::string& path, const ModelConfig& model);

  int64_t sequence_len() const { return sequence_len_; }
  int64_t num_tokens() const { return static_cast<int64_t>(ids_.size()); }

  // Collective. Runs all sequences and compares.
  LogitsDifference compare(LogitsRun& run);

 private:
  NpzFile file_;
  int64_t vocab_size_;
  int64_t sequence_len_ = 0;
  std::vector<int32_t> ids_;  // of all sequences, one after another
};

}  // namespace caravan
