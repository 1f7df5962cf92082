// The data of a run on this rank: open token files, batches made ahead for training, windows for
// evaluation. What it returns depends on the step alone, not on what was read before.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/prefetcher.h"
#include "data/sampler.h"
#include "launch/config.h"
#include "runtime/mesh.h"

namespace caravan {

// What the section `data` says of token files that do not say their vocabulary: its keys, which
// win, and its tokenizer. A data_error when there is no such tokenizer.
GivenVocabulary given_vocabulary(const DataConfig& data);

// `config` with the vocabulary of its training data, or that of the model when it gives one: a
// config error when the data has more tokens than the model.
Config with_data_vocabulary(Config config);

// Which part of each batch a rank reads: dealt out over dp and ep as the graph's inputs are. All
// ranks of a tp group read the same.
BatchLayout batch_layout(const Config& config, const Mesh& mesh);

class DataFeed {
 public:
  // Opens and checks all files; those of validation must have the vocabulary of the others.
  DataFeed(const Config& config, const Mesh& mesh);

  // What the training files hold: their sizes, tokenizers and a checksum of tokens at many places.
  // Two files with the same are the same data, unless someone changed single documents in place.
  std::string identity() const;

  const TokenVocabulary& vocabulary() const { return sampler_->vocabulary(); }

  // Begins to read ahead: the first batch is that of step `first_step`, counted from 0.
  void start(int64_t first_step);

  // The next micro-batch of this rank; valid until the next call.
  const Batch& next() { return prefetcher_->next(); }
  double wait_seconds() const { return prefetcher_->wait_seconds(); }

  bool has_validation() const { return validation_ != nullptr; }
  // Every rank has this many evaluation batches; rows past the end of the data are empty.
  int64_t num_validation_batches() const;
  const Batch& validation_batch(int64_t index);

 private:
  BatchLayout layout_;
  SamplerOptions options_;
  int64_t eval_batches_;
  std::vector<std::unique_ptr<TokenFile>> files_;
  std::unique_ptr<TokenFile> validation_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<Prefetcher> prefetcher_;
  Batch validation_batch_;
};

// Bytes that the batches of a feed take: what the memory plan must leave for it.
int64_t feed_bytes(const Config& config);

}  // namespace caravan
