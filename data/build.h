// `caravan data build`: text files in, a folder out that training reads:
//   train.h5, validation.h5   token files (token_file.h); documents are held out whole
//   tokenizer.model           the vocabulary, trained; or the files of the tokenizer that was given
//                             (tokenizer.json and what belongs to it), copied; an eos_token that
//                             was asked for is in the copy's tokenizer_config.json (of which a
//                             SentencePiece model that is opened here takes no notice)
//   data.json                 what was read and written: counts, bytes per token, sources
// Documents begin as Tokenizer::document_prefix says: without bos when that is the eos.
// Memory does not grow with the input, apart from the list of file names. The same input, options
// and version give the same vocabulary and tokens (HDF5 keeps the time, so not the same bytes).
//
// Errors: data_error for text and tokenizer, config_error for options; one line each. When anything
// fails, no output folder appears.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/text_source.h"

namespace caravan {

struct BuildOptions {
  std::vector<std::string> inputs;  // files and folders: see list_text_files
  std::string output;               // a folder that does not exist yet, or is empty
  int vocab_size = 4096;            // of the vocabulary to train
  std::string tokenizer;            // one to use instead: see open_tokenizer
  std::string eos_token;            // ends documents; empty: that of the tokenizer
  double validation_fraction = 0.02;
  uint64_t seed = 1;
  int64_t sample_bytes = int64_t{4} << 20;  // of text that the vocabulary is trained on
};

struct SplitCounts {
  int64_t num_documents = 0;
  int64_t num_tokens = 0;  // with bos and eos
};

struct BuildReport {
  int64_t num_files = 0;
  TextStatistics text;
  int64_t max_document_bytes = 0;  // longer documents were cut
  bool few_documents = false;      // so few that they were cut to have some to hold out
  int32_t vocab_size = 0;
  SplitCounts train;
  SplitCounts validation;

  // Text bytes per token, bos and eos counted.
  double bytes_per_token() const;
};

enum class BuildStage { counting, sampling, training_tokenizer, encoding };

struct BuildProgress {
  BuildStage stage = BuildStage::counting;
  int64_t num_bytes = 0;    // of text, done in this stage
  int64_t total_bytes = 0;  // 0: not known yet
};

// `progress` is called on the calling thread, up to once per MiB of text.
BuildReport build_token_files(const BuildOptions& options,
                              const std::function<void(const BuildProgress&)>& progress);

// True for a document that is held out: a function of the seed and the document's number.
bool is_held_out(int64_t document, double fraction, uint64_t seed);

}  // namespace caravan
