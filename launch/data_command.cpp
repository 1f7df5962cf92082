#include "launch/data_command.h"

#include <unistd.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>

#include "absl/strings/str_format.h"
#include "data/build.h"
#include "data/sampler.h"
#include "data/token_file.h"
#include "data/tokenizer.h"
#include "launch/clock.h"
#include "launch/data_feed.h"
#include "launch/log.h"
#include "runtime/error.h"
#include "runtime/types.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// An unsigned option alone would take -1 as 2^64 - 1, and what is too large as the largest number.
const CLI::Range kSeeds(int64_t{0}, std::numeric_limits<int64_t>::max() - 1);

// ------------------------------------------------------------------------------------------- build

const char* stage_name(BuildStage stage) {
  switch (stage) {
    case BuildStage::counting:
      return "reading the text";
    case BuildStage::sampling:
      return "sampling text for the vocabulary";
    case BuildStage::training_tokenizer:
      return "training the vocabulary";
    case BuildStage::encoding:
      return "encoding";
  }
  return "";
}

std::string progress_text(const BuildProgress& progress, double stage_seconds) {
  std::string text = stage_name(progress.stage);
  if (progress.num_bytes == 0) return text;
  absl::StrAppendFormat(&text, ": %s", format_bytes(progress.num_bytes));
  if (progress.total_bytes > 0) {
    const double done =
        static_cast<double>(progress.num_bytes) / static_cast<double>(progress.total_bytes);
    absl::StrAppendFormat(&text, " of %s, %.0f%%, eta %s", format_bytes(progress.total_bytes),
                          100 * done, format_duration(stage_seconds * (1 - done) / done));
  }
  return text;
}

// One live line on a terminal; elsewhere a line for each stage and then every ten seconds.
class ProgressLine {
 public:
  ~ProgressLine() {
    if (is_terminal_) std::fprintf(stderr, "\r\033[K");
  }

  void show(const BuildProgress& progress) {
    const bool is_new = !shown_ || progress.stage != stage_;
    if (is_new) stage_begin_ = Clock::now();
    const double interval = is_terminal_ ? 0.2 : 10;
    if (!is_new && seconds_since(last_) < interval) return;
    shown_ = true;
    stage_ = progress.stage;
    last_ = Clock::now();
    const std::string text = progress_text(progress, seconds_since(stage_begin_));
    std::fprintf(stderr, is_terminal_ ? "\r\033[K%s" : "%s\n", text.c_str());
    std::fflush(stderr);
  }

 private:
  bool is_terminal_ = isatty(STDERR_FILENO) != 0 && terminal_moves_cursor();
  bool shown_ = false;
  BuildStage stage_ = BuildStage::counting;
  Clock::time_point stage_begin_;
  Clock::time_point last_;
};

std::string counts(const SplitCounts& split) {
  return absl::StrFormat("%s documents, %s tokens", format_count(split.num_documents),
                         format_count(split.num_tokens));
}

void print_summary(const BuildOptions& options, const BuildReport& report, double seconds,
                   std::ostream& out) {
  const auto line = [&](const char* key, const std::string& value) {
    out << absl::StrFormat("%-12s %s\n", key, value);
  };
  const TextStatistics& text = report.text;
  line("text", absl::StrFormat("%s documents, %s, of %s files", format_count(text.num_documents),
                               format_bytes(text.num_bytes), format_count(report.num_files)));
  line("vocabulary", absl::StrFormat("%s tokens, %.2f bytes per token",
                                     format_count(report.vocab_size), report.bytes_per_token()));
  line("train", counts(report.train));
  line("validation", counts(report.validation));
  if (report.few_documents) {
    line("note", absl::StrFormat("few documents: longer ones were cut into pieces of %s, so that "
                                 "some could be held out",
                                 format_bytes(report.max_document_bytes)));
  }
  if (text.num_replaced > 0) {
    line("note", absl::StrFormat("%s places were not UTF-8 and are now U+FFFD",
                                 format_count(text.num_replaced)));
  }
  if (text.num_empty > 0) {
    line("note", absl::StrFormat("%s empty documents skipped", format_count(text.num_empty)));
  }
  line("written", absl::StrFormat("%s in %s", options.output, format_duration(seconds)));
}

void build(const BuildOptions& options, bool json) {
  const auto begin = Clock::now();
  BuildReport report;
  {
    ProgressLine line;
    report = build_token_files(options, [&](const BuildProgress& now) { line.show(now); });
  }
  if (json) {
    std::cout << std::ifstream(fs::path(options.output) / "data.json").rdbuf();
  } else {
    print_summary(options, report, seconds_since(begin), std::cout);
  }
}

void add_build(CLI::App& data) {
  struct Arguments {
    BuildOptions options;
    bool json = false;
  };
  CLI::App* command = data.add_subcommand("build", "text and JSON lines to token files");
  const auto arguments = std::make_shared<Arguments>();  // CLI11 keeps references to the values
  BuildOptions& options = arguments->options;
  command
      ->add_option("INPUT", options.inputs,
                   "files or folders: .txt .rst .md (a document a file), .jsonl (a document a "
                   "line, field \"text\"); also .gz")
      ->required();
  command->add_option("-o,--output", options.output, "folder to make")->required();
  CLI::Option* vocabulary =
      command->add_option("--vocab-size", options.vocab_size, "size of the vocabulary to train")
          ->capture_default_str();
  command
      ->add_option("--tokenizer", options.tokenizer,
                   "use this one instead: a folder or file with a byte-level BPE (tokenizer.json) "
                   "or a SentencePiece .model")
      ->excludes(vocabulary);
  command->add_option("--eos-token", options.eos_token,
                      "the token that ends a document, if the tokenizer does not say");
  command
      ->add_option("--validation-fraction", options.validation_fraction,
                   "share of the documents that is held out")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "chooses which documents are held out")
      ->capture_default_str()
      ->check(kSeeds);
  command->add_flag("--json", arguments->json, "print data.json instead of a summary");
  command->callback([arguments] { build(arguments->options, arguments->json); });
}

// -------------------------------------------------------------------------------------------- show

std::string tokenizer_path(const ShowOptions& options, const std::string& token_file) {
  if (!options.tokenizer.empty()) return options.tokenizer;
  return fs::absolute(token_file).parent_path().string();
}

void check_tokenizer(const Tokenizer& tokenizer, const TokenFile& file) {
  if (tokenizer.hash() == file.vocabulary().tokenizer_hash) return;
  throw data_error(absl::StrFormat(
      "%s: is not the tokenizer that %s was made with (%s, not %s): pass it with --tokenizer",
      tokenizer.path(), file.path(), tokenizer.hash(), file.vocabulary().tokenizer_hash));
}

// Prints the tokens of one window in runs of what is trained on and what is not.
class SamplePrinter {
 public:
  SamplePrinter(const Tokenizer& tokenizer, const TokenVocabulary& vocabulary, std::ostream& out)
      : tokenizer_(tokenizer), vocabulary_(vocabulary), out_(out) {}

  void token(int32_t id, bool is_trained) {
    if (is_trained != is_trained_) {
      flush();
      out_ << (is_trained ? "]]" : "[[");
      is_trained_ = is_trained;
    }
    const bool is_control = id == vocabulary_.bos_id || id == vocabulary_.eos_id;
    if (!is_control) return run_.push_back(id);
    flush();
    out_ << tokenizer_.piece(id);
  }

  void border() {
    end();
    out_ << "\n---- next document ----\n";
  }

  void end() {
    flush();
    if (!is_trained_) out_ << "]]";
    is_trained_ = true;
  }

 private:
  void flush() {
    out_ << tokenizer_.decode(run_);
    run_.clear();
  }

  const Tokenizer& tokenizer_;
  const TokenVocabulary& vocabulary_;
  std::ostream& out_;
  std::vector<int32_t> run_;
  bool is_trained_ = true;
};

void print_sample(const Batch& batch, const Tokenizer& tokenizer, const TokenVocabulary& vocabulary,
                  std::ostream& out) {
  SamplePrinter printer(tokenizer, vocabulary, out);
  for (size_t i = 0; i < batch.ids.size(); ++i) {
    const bool follows_eos = i > 0 && batch.ids[i - 1] == vocabulary.eos_id;
    if (follows_eos) printer.border();
    printer.token(batch.ids[i], i > 0 && batch.targets[i - 1] != kIgnore);
  }
  printer.end();
  out << "\n\n";
}

int64_t num_documents(const Batch& batch, int32_t eos_id) {
  int64_t count = 1;
  for (size_t i = 0; i + 1 < batch.ids.size(); ++i) count += batch.ids[i] == eos_id ? 1 : 0;
  return count;
}

void print_header(const Sampler& sampler, const TokenFile& file, int64_t sample, const Batch& batch,
                  std::ostream& out) {
  const SampleLocation location = sampler.locate(sample);
  const int64_t first = location.window * batch.sequence_len;
  out << absl::StrFormat(
      "==== sample %d: epoch %d, window %d of %d (tokens %d..%d), %d documents, %d of %d tokens "
      "trained on\n",
      sample, location.epoch, location.window, sampler.num_windows(0), first,
      first + batch.sequence_len - 1, num_documents(batch, file.vocabulary().eos_id),
      batch.num_targets(), batch.sequence_len);
}

// Of a file that does not say its vocabulary (.bin), the options do.
std::unique_ptr<TokenFile> open_to_show(const ShowOptions& options) {
  DataConfig data;
  if (!token_file_path(options.path, "train").ends_with(".h5")) data.tokenizer = options.tokenizer;
  data.eos_token_id = options.eos_token_id;
  return open_token_file(options.path, "train", given_vocabulary(data));
}

void add_data_show(CLI::App& data) {
  CLI::App* command = data.add_subcommand("show", "samples as text, what is trained on marked");
  const auto options = std::make_shared<ShowOptions>();
  command->add_option("PREFIX_OR_FILE", options->path, "a folder of `data build`, or a token file")
      ->required();
  command->add_option("--samples", options->num_samples, "how many")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  command->add_option("--first", options->first_sample, "number of the first sample")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 60));
  command->add_option("--sequence-len", options->sequence_len, "tokens per sample")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  command->add_option("--seed", options->seed, "train.seed of the run")
      ->capture_default_str()
      ->check(kSeeds);
  command->add_option("--tokenizer", options->tokenizer,
                      "its folder or file, if it is elsewhere or of a .bin");
  command
      ->add_option("--eos-token-id", options->eos_token_id,
                   "of .bin files: the token between documents, if not the tokenizer's eos")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command->add_flag("--attend-across-documents", options->attend_across_documents,
                    "as data.attend_across_documents");
  command->callback([options] { show_samples(*options, std::cout); });
}

}  // namespace

void show_samples(const ShowOptions& options, std::ostream& out) {
  const std::unique_ptr<TokenFile> opened = open_to_show(options);
  const TokenFile& file = *opened;
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(tokenizer_path(options, file.path()));
  check_tokenizer(*tokenizer, file);
  const Sampler sampler({{&file, 1.0}},
                        {.sequence_len = options.sequence_len,
                         .seed = options.seed,
                         .attend_across_documents = options.attend_across_documents});
  const std::optional<int64_t> documents = file.num_documents();
  out << absl::StrFormat(
      "%s: %s%s tokens, vocabulary of %s\n"
      "[[ ]]: not trained on (the first token has none before it that could "
      "predict it)\n\n",
      file.path(), documents ? format_count(*documents) + " documents, " : "",
      format_count(file.num_tokens()), format_count(file.vocabulary().size));
  Batch batch;
  batch.resize(1, options.sequence_len);
  for (int64_t i = 0; i < options.num_samples; ++i) {
    const int64_t sample = options.first_sample + i;
    sampler.fill({sample, 1}, batch);
    print_header(sampler, file, sample, batch, out);
    print_sample(batch, *tokenizer, file.vocabulary(), out);
  }
}

void add_data_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("data", "make token files, and look at them");
  command->require_subcommand(1);
  add_build(*command);
  add_data_show(*command);
}

}  // namespace caravan
