// Three passes over the text: count (so that shares and progress are known), sample for the
// vocabulary, encode.
#include "data/build.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "data/durable_file.h"
#include "data/hdf5_token_file.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/utf8.h"
#include "data/work_folder.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;
using Progress = std::function<void(const BuildProgress&)>;

constexpr int64_t kProgressBytes = int64_t{1} << 20;
constexpr int64_t kSnippetBytes = 4096;
// Text encoded at once by all threads.
constexpr int64_t kEncodeBytes = int64_t{4} << 20;
constexpr size_t kEncodeDocuments = 4096;
// When fewer documents than kFewHeldOut would be held out, they are cut into so many that
// kWantedHeldOut are.
constexpr double kFewHeldOut = 4;
constexpr double kWantedHeldOut = 16;
constexpr int64_t kMinCutBytes = 1024;

void check_options(const BuildOptions& options) {
  if (options.output.empty()) {
    throw config_error("--output: the name is empty: give the folder to make");
  }
  if (options.vocab_size < 260 || options.vocab_size > 1 << 20) {
    throw config_error(absl::StrFormat(
        "--vocab-size: %d is not in 260..1048576 (256 bytes and 3 control tokens are always in it)",
        options.vocab_size));
  }
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    throw config_error(
        absl::StrFormat("--validation-fraction: %g is not in [0, 1)", options.validation_fraction));
  }
  check(options.sample_bytes > 0, "build: sample of %d bytes", options.sample_bytes);
}

// Reports on one stage, at most once per MiB.
class StageProgress {
 public:
  StageProgress(const Progress& report, BuildStage stage, int64_t total_bytes)
      : report_(report), state_{stage, 0, total_bytes} {
    report_(state_);
  }
  void add(size_t bytes) {
    state_.num_bytes += static_cast<int64_t>(bytes);
    if (state_.num_bytes - reported_ < kProgressBytes) return;
    reported_ = state_.num_bytes;
    report_(state_);
  }

 private:
  const Progress& report_;
  BuildProgress state_;
  int64_t reported_ = 0;
};

TextStatistics count_text(const std::vector<std::string>& files, const Progress& progress) {
  TextSource source(files);
  StageProgress stage(progress, BuildStage::counting, 0);
  std::string document;
  while (source.next(document)) stage.add(document.size());
  if (source.statistics().num_documents == 0) {
    throw data_error(
        absl::StrFormat("%s: the %d files hold no text but white space", files[0], files.size()));
  }
  return source.statistics();
}

// Shorter than the usual limit when there are too few documents to hold some out: a book in one
// file, say, is cut into pieces.
int64_t document_limit(const TextStatistics& text, double fraction) {
  const double expected = static_cast<double>(text.num_documents) * fraction;
  if (fraction == 0 || expected >= kFewHeldOut) return TextSource::kMaxDocumentBytes;
  const double bytes = static_cast<double>(text.num_bytes) * fraction / kWantedHeldOut;
  return std::clamp(static_cast<int64_t>(bytes), kMinCutBytes, TextSource::kMaxDocumentBytes);
}

// Snippets of the training documents, each kept with the same probability, so that they come from
// all of the text. The bound on memory holds also when the draw is unlucky.
std::vector<std::string> sample_text(const std::vector<std::string>& files,
                                     const BuildOptions& options, const BuildReport& report,
                                     const Progress& progress) {
  const double share =
      static_cast<double>(options.sample_bytes) / static_cast<double>(report.text.num_bytes);
  const RandomStream draw(options.seed, RandomPurpose::shuffle, stable_hash("tokenizer sample"));
  StageProgress stage(progress, BuildStage::sampling, report.text.num_bytes);
  TextSource source(files, report.max_document_bytes);
  std::vector<std::string> sample;
  int64_t sampled_bytes = 0;
  uint64_t snippet = 0;
  std::string text;
  for (int64_t document = 0; source.next(text); ++document) {
    stage.add(text.size());
    if (is_held_out(document, options.validation_fraction, options.seed)) continue;
    for (size_t begin = 0; begin < text.size(); ++snippet) {
      const std::string_view rest = std::string_view(text).substr(begin);
      const size_t size = line_cut(rest, kSnippetBytes);
      begin += size;
      if (draw.uniform(snippet) >= share || sampled_bytes > options.sample_bytes) continue;
      sample.emplace_back(rest.substr(0, size));
      sampled_bytes += static_cast<int64_t>(size);
    }
  }
  return sample;
}

// The contents of tokenizer_config.json or the like, with another eos_token.
std::string with_eos(const std::string& contents, const std::string& eos_token,
                     const std::string& path) {
  auto json = nlohmann::ordered_json::parse(contents, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw data_error(path + ": is no JSON object: mend or remove it");
  json["eos_token"] = eos_token;
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void copy_tokenizer(const Tokenizer& given, const std::string& eos_token,
                    const WorkFolder& folder) {
  std::map<std::string, std::string> files;
  for (const std::string& file : given.files()) {
    const bool is_main = file == given.path();
    const std::string name = is_main ? given.file_name() : fs::path(file).filename().string();
    files[name] = read_file(file, SIZE_MAX, ExitCode::data);
  }
  if (!eos_token.empty()) {
    files.try_emplace("tokenizer_config.json", "{}");
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
      const std::string path = (fs::path(given.path()).parent_path() / name).string();
      const auto file = files.find(name);
      if (file != files.end()) file->second = with_eos(file->second, eos_token, path);
    }
  }
  for (const auto& [name, contents] : files) {
    write_file_durably(folder.file(name), contents, ExitCode::data);
  }
  // The given one encodes, so that messages name it: the copy must be the same.
  if (tokenizer_hash(files.at(given.file_name())) != given.hash()) {
    throw data_error(given.path() + ": has changed since it was opened: start again");
  }
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::vector<std::string>& files,
                                          const BuildOptions& options, const BuildReport& report,
                                          const Progress& progress, const WorkFolder& folder) {
  const std::vector<std::string> sample = sample_text(files, options, report, progress);
  progress({BuildStage::training_tokenizer, 0, 0});
  const std::string path = folder.file("tokenizer.model");
  train_tokenizer(sample, options.vocab_size, path);
  return open_tokenizer(path);
}

int32_t eos_of(const Tokenizer& tokenizer, const std::string& eos_token) {
  if (!eos_token.empty()) {
    const int32_t id = tokenizer.token_id(eos_token);
    if (id >= 0) return id;
    throw data_error(
        absl::StrFormat("--eos-token: %s has no token '%s'", tokenizer.path(), eos_token));
  }
  if (tokenizer.eos_id() >= 0) return tokenizer.eos_id();
  throw data_error(tokenizer.path() +
                   ": does not say which token ends a document: pass --eos-token TEXT");
}

TokenVocabulary vocabulary_of(const Tokenizer& tokenizer, const std::string& eos_token) {
  const int32_t eos_id = eos_of(tokenizer, eos_token);
  return {tokenizer.vocab_size(), tokenizer.document_bos_id(eos_id), eos_id, tokenizer.hash()};
}

// Encodes documents on all threads and appends them in their order.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, int32_t eos_id, const BuildOptions& options,
          TokenFileWriter& train, TokenFileWriter& validation)
      : tokenizer_(tokenizer),
        eos_id_(eos_id),
        prefix_(tokenizer.document_prefix(eos_id)),
        options_(options),
        train_(train),
        validation_(validation) {}

  void add(std::string document) {
    num_bytes_ += static_cast<int64_t>(document.size());
    documents_.push_back(std::move(document));
    if (num_bytes_ >= kEncodeBytes || documents_.size() == kEncodeDocuments) flush();
  }

  void flush() {
    for (const std::vector<int32_t>& tokens : encode()) {
      const bool held_out =
          is_held_out(num_documents_++, options_.validation_fraction, options_.seed);
      (held_out ? validation_ : train_).append(tokens);
    }
    // Not recycled: each would grow to the size of the longest document that it ever held.
    documents_.clear();
    num_bytes_ = 0;
  }

 private:
  std::vector<std::vector<int32_t>> encode() const {
    std::vector<std::vector<int32_t>> tokens(documents_.size());
    std::exception_ptr error;  // must not leave the parallel region
    std::atomic<bool> has_failed = false;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < documents_.size(); ++i) {
      // What is slow to fail with one document would be with thousands of others.
      if (has_failed.load(std::memory_order_relaxed)) continue;
      try {
        // The first of the prefix is the bos, which the file knows.
        if (!prefix_.empty()) tokens[i].assign(prefix_.begin() + 1, prefix_.end());
        tokenizer_.encode(documents_[i], tokens[i]);
        check_no_eos(tokens[i]);
      } catch (...) {
        has_failed = true;
#pragma omp critical
        error = std::current_exception();
      }
    }
    if (error != nullptr) std::rethrow_exception(error);
    return tokens;
  }

  // A special token never comes out of text; another one that was chosen to end documents may.
  void check_no_eos(const std::vector<int32_t>& tokens) const {
    if (std::find(tokens.begin(), tokens.end(), eos_id_) == tokens.end()) return;
    throw data_error(absl::StrFormat(
        "%s: the token '%s' that ends documents occurs in the text: pass another --eos-token",
        tokenizer_.path(), tokenizer_.piece(eos_id_)));
  }

  const Tokenizer& tokenizer_;
  int32_t eos_id_;
  std::span<const int32_t> prefix_;
  const BuildOptions& options_;
  TokenFileWriter& train_;
  TokenFileWriter& validation_;
  std::vector<std::string> documents_;  // waiting
  int64_t num_bytes_ = 0;
  int64_t num_documents_ = 0;
};

void check_held_out(const BuildReport& report, double fraction) {
  if (report.train.num_documents > 0 && (fraction == 0 || report.validation.num_documents > 0)) {
    return;
  }
  throw data_error(absl::StrFormat(
      "--validation-fraction: of %d documents %d were held out and %d left: add text, or pass "
      "another fraction (0 holds out nothing) or --seed",
      report.text.num_documents, report.validation.num_documents, report.train.num_documents));
}

void encode_text(const std::vector<std::string>& files, const BuildOptions& options,
                 const WorkFolder& folder, const Tokenizer& tokenizer,
                 const TokenVocabulary& vocabulary, const Progress& progress, BuildReport& report) {
  TokenFileWriter train(folder.file("train.h5"), vocabulary);
  TokenFileWriter validation(folder.file("validation.h5"), vocabulary);
  StageProgress stage(progress, BuildStage::encoding, report.text.num_bytes);
  TextSource source(files, report.max_document_bytes);
  Encoder encoder(tokenizer, vocabulary.eos_id, options, train, validation);
  for (std::string document; source.next(document);) {
    stage.add(document.size());
    encoder.add(std::move(document));
  }
  encoder.flush();
  report.text = source.statistics();
  report.train = {train.num_documents(), train.num_tokens()};
  report.validation = {validation.num_documents(), validation.num_tokens()};
  check_held_out(report, options.validation_fraction);
  train.close();
  if (options.validation_fraction > 0) validation.close();
}

std::string description(const BuildOptions& options, const BuildReport& report,
                        const TokenVocabulary& vocabulary) {
  const auto split = [](const SplitCounts& counts) -> nlohmann::ordered_json {
    return {{"documents", counts.num_documents}, {"tokens", counts.num_tokens}};
  };
  const nlohmann::ordered_json json = {
      {"format_version", 1},
      {"tool", "caravan " CARAVAN_VERSION},
      {"sources", options.inputs},
      {"files", report.num_files},
      {"documents", report.text.num_documents},
      {"bytes", report.text.num_bytes},
      {"bytes_per_token", report.bytes_per_token()},
      {"train", split(report.train)},
      {"validation", split(report.validation)},
      {"validation_fraction", options.validation_fraction},
      {"seed", options.seed},
      {"vocab_size", vocabulary.size},
      {"bos_id", vocabulary.bos_id},
      {"eos_id", vocabulary.eos_id},
      {"tokenizer_hash", vocabulary.tokenizer_hash},
      {"max_document_bytes", report.max_document_bytes},
      {"documents_cut", report.text.num_cuts},
      {"documents_empty", report.text.num_empty},
      {"invalid_utf8_replaced", report.text.num_replaced},
  };
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

double BuildReport::bytes_per_token() const {
  return static_cast<double>(text.num_bytes) /
         static_cast<double>(std::max<int64_t>(train.num_tokens + validation.num_tokens, 1));
}

bool is_held_out(int64_t document, double fraction, uint64_t seed) {
  const RandomStream draw(seed, RandomPurpose::shuffle, stable_hash("held-out documents"));
  return draw.uniform(static_cast<uint64_t>(document)) < fraction;
}

BuildReport build_token_files(const BuildOptions& options, const Progress& progress) {
  check_options(options);
  const std::vector<std::string> files = list_text_files(options.inputs);
  // Refused before hours of work: what is no tokenizer, or has no end of documents.
  std::unique_ptr<Tokenizer> tokenizer =
      options.tokenizer.empty() ? nullptr : open_tokenizer(options.tokenizer);
  if (tokenizer != nullptr) eos_of(*tokenizer, options.eos_token);
  WorkFolder folder(options.output);
  BuildReport report;
  report.num_files = std::ssize(files);
  report.text = count_text(files, progress);
  report.max_document_bytes = document_limit(report.text, options.validation_fraction);
  report.few_documents = report.max_document_bytes < TextSource::kMaxDocumentBytes;
  if (tokenizer == nullptr)
    tokenizer = make_tokenizer(files, options, report, progress, folder);
  else
    copy_tokenizer(*tokenizer, options.eos_token, folder);
  const TokenVocabulary vocabulary = vocabulary_of(*tokenizer, options.eos_token);
  report.vocab_size = vocabulary.size;
  encode_text(files, options, folder, *tokenizer, vocabulary, progress, report);
  write_file_durably(folder.file("data.json"), description(options, report, vocabulary),
                     ExitCode::data);
  folder.publish(ExitCode::data);
  return report;
}

}  // namespace caravan
