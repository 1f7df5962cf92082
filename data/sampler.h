// From sample numbers to sequences: Sampler for training (shuffled, endless, mixed from sources),
// fill_sequential for evaluation (in order, every token once). Both are pure functions of their
// arguments: no state to save, no dependence on the number of ranks, any sample in O(1).
//
// A file is cut into windows of sequence_len + 1 tokens that overlap by one, so that every token
// but the first is predicted once. Training leaves the incomplete last window out. Threads: const
// members and functions may be called from any number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "data/batch.h"
#include "data/mixture.h"
#include "data/token_file.h"

namespace caravan {

struct SamplerOptions {
  int64_t sequence_len = 0;
  uint64_t seed = 0;
  bool attend_across_documents = false;  // see DocumentRules
};

struct SampleSource {
  const TokenFile* file = nullptr;  // must outlive the sampler
  double weight = 1;                // share of the samples, relative to the other sources
};

struct SampleLocation {
  int source = 0;
  int64_t epoch = 0;   // of that source: each counts its own
  int64_t window = 0;  // of that source: tokens [window * T, window * T + T + 1)

  bool operator==(const SampleLocation&) const = default;
};

class Sampler {
 public:
  // A data_error when a source has less than one window, or the vocabularies differ.
  Sampler(std::vector<SampleSource> sources, const SamplerOptions& options);

  // Sample numbers go on from epoch to epoch: sample 0 is the first of epoch 0.
  SampleLocation locate(int64_t sample) const;

  // Rows [row, row + samples.count) of a batch that has been resized. Allocates for the first only.
  void fill(SampleRange samples, Batch& batch, int64_t row = 0) const;

  int64_t num_windows(int source) const;
  double epoch(int source, int64_t sample) const;  // passes over a source before this sample
  const TokenVocabulary& vocabulary() const { return sources_.front().file->vocabulary(); }
  const SamplerOptions& options() const { return options_; }

 private:
  std::vector<SampleSource> sources_;
  std::vector<int64_t> num_windows_;
  SamplerOptions options_;
  Mixture mixture_;
};

// Windows of an evaluation, the last and incomplete one included.
int64_t num_sequential_windows(const TokenFile& file, int64_t sequence_len);

// Rows 0 .. windows.count - 1 of `batch` (which is resized) from consecutive windows; windows past
// the last are all padding, so that every rank can run the same number of batches.
void fill_sequential(const TokenFile& file, const SamplerOptions& options, SampleRange windows,
                     Batch& batch);

}  // namespace caravan
