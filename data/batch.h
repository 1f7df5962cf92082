// What a training or evaluation step reads: the arrays of N sequences of T tokens, and which
// sequences of the global batch a rank reads. No files, no randomness.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace caravan {

inline constexpr int32_t kIgnore = -1;  // a target that is not predicted

// N = num_samples rows of T = sequence_len, row-major. Query i of a row sees key j of the same row
// iff document_start[i] <= j <= i.
struct Batch {
  int64_t num_samples = 0;
  int64_t sequence_len = 0;
  std::vector<int32_t> ids;             // (N, T)
  std::vector<int32_t> targets;         // (N, T) the next token, or kIgnore
  std::vector<int32_t> positions;       // (N, T) index in the document, as far as this row has it
  std::vector<int32_t> document_start;  // (N, T) index in the row of the document's first token

  std::vector<int32_t> window;  // (T + 1) scratch of those who fill it

  void resize(int64_t samples, int64_t length);  // keeps its memory when it shrinks
  int64_t num_targets() const;                   // those that are predicted
};

struct DocumentRules {
  int32_t eos_id = 0;  // ends a document
  // false: nothing is predicted or attended to across the border of two documents.
  // true: a row is one stream: document_start 0, positions 0..T-1, every target valid.
  bool attend_across = false;
};

// Fills row `row` of a batch from the window of up to T + 1 consecutive tokens: token i predicts
// token i + 1. Where the window is shorter, the row is padded: ids eos, targets kIgnore.
void fill_row(Batch& batch, int64_t row, std::span<const int32_t> window,
              const DocumentRules& rules);

// How the sequences of a global batch are split. One step is num_micro_steps() micro steps; in each
// every rank reads micro_batch_size rows.
struct BatchLayout {
  int64_t global_batch_size = 0;  // sequences per step, over all ranks and micro steps
  int64_t micro_batch_size = 0;   // sequences per rank and micro step
  int64_t num_ranks = 1;          // data-parallel ranks
  int64_t rank = 0;

  // A config_error that names all numbers unless num_ranks * micro_batch_size divides the batch.
  int64_t num_micro_steps() const;
};

struct SampleRange {
  int64_t first = 0;
  int64_t count = 0;

  bool operator==(const SampleRange&) const = default;
};

// The samples of one rank: step s is the samples [s*G, (s+1)*G), G the global batch size; its micro
// steps are equal consecutive parts of them, and the ranks' shares are equal consecutive parts of
// those. So the samples of a step do not depend on the layout, only who reads them does.
SampleRange rank_samples(const BatchLayout& layout, int64_t step, int64_t micro_step);

}  // namespace caravan
