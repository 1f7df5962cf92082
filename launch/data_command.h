// `caravan data build|show`: makes token files from text, and shows what training reads of them.
// Summaries go to stdout, progress to stderr; a user's mistake is thrown as Error.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace caravan {

// Adds `data` with its subcommands to `app`; parsing runs them.
void add_data_command(CLI::App& app);

struct ShowOptions {
  std::string path;         // a folder made by `data build` (its train.h5), or a token file
  std::string tokenizer{};  // empty: the one beside the token file
  std::optional<int64_t> eos_token_id{};  // of .bin files; absent: the tokenizer's
  int64_t num_samples = 2;
  int64_t first_sample = 0;
  int64_t sequence_len = 128;
  uint64_t seed = 1;  // of the training whose samples are shown
  bool attend_across_documents = false;
};

// Prints samples as text, in the order of a training with this seed. What is not trained on (no
// token is asked to predict it) stands in [[ ]]; a line marks each border of documents.
void show_samples(const ShowOptions& options, std::ostream& out);

}  // namespace caravan
