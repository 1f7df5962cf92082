#include "launch/data_feed.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/crc32c.h"
#include "data/tokenizer.h"
#include "models/model.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int kPrefetchDepth = 4;  // micro-batches
constexpr int64_t kProbes = 64;    // places that the checksum of a token file looks at
constexpr int64_t kProbeTokens = 1024;

SamplerOptions sampler_options(const Config& config) {
  return {.sequence_len = config.data.sequence_len,
          .seed = static_cast<uint64_t>(config.train.seed),
          .attend_across_documents = config.data.attend_across_documents};
}

// Reads at most 64 Ki tokens, however large the file is; all of them when it is small.
uint32_t probe(const TokenFile& file) {
  std::vector<int32_t> tokens(std::min(kProbeTokens, file.num_tokens()));
  const int64_t last = file.num_tokens() - std::ssize(tokens);  // where the last probe begins
  uint32_t crc = 0;
  for (int64_t i = 0; i < kProbes; ++i) {
    file.read(last / (kProbes - 1) * i + last % (kProbes - 1) * i / (kProbes - 1), tokens);
    crc = crc32c(tokens.data(), tokens.size() * sizeof(int32_t), crc);
  }
  return crc;
}

}  // namespace

BatchLayout batch_layout(const Config& config, const Mesh& mesh) {
  const int parts = mesh.size(Axis::dp) * mesh.size(Axis::ep);
  const Box box = local_box({parts}, batch_placement(), mesh);
  return {.global_batch_size = config.train.global_batch_size,
          .micro_batch_size = config.train.micro_batch_size,
          .num_ranks = parts,
          .rank = static_cast<int>(box.offset[0])};
}

GivenVocabulary given_vocabulary(const DataConfig& data) {
  GivenVocabulary given;
  if (!data.tokenizer.empty()) {
    const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(data.tokenizer);
    given = {.size = tokenizer->vocab_size(),
             .bos_id = tokenizer->document_bos_id(tokenizer->eos_id()),
             .eos_id = tokenizer->eos_id(),
             .tokenizer_hash = tokenizer->hash()};
  }
  if (data.vocab_size > 0) given.size = data.vocab_size;
  if (data.eos_token_id) given.eos_id = data.eos_token_id;
  if (data.bos_token_id) given.bos_id = data.bos_token_id;
  return given;
}

Config with_data_vocabulary(Config config) {
  const std::unique_ptr<TokenFile> file =
      open_token_file(config.data.train.front().path, "train", given_vocabulary(config.data));
  const int64_t of_data = file->vocabulary().size;
  if (config.model.vocab_size == 0) config.model.vocab_size = of_data;
  if (config.model.vocab_size < of_data && !config.model.init_from.empty()) {
    throw config_error(absl::StrFormat(
        "the vocabulary of %s has %d tokens, less than the %d of %s; build the data with the "
        "model's tokenizer: caravan data build --tokenizer %s",
        config.model.init_from, config.model.vocab_size, of_data, file->path(),
        config.model.init_from));
  }
  if (config.model.vocab_size < of_data) {
    throw config_error(
        absl::StrFormat("model.vocab_size %d is less than the %d tokens of %s; leave it out, or "
                        "give data with a vocabulary of at most %d",
                        config.model.vocab_size, of_data, file->path(), config.model.vocab_size));
  }
  return config;
}

int64_t feed_bytes(const Config& config) {
  const int64_t tokens = config.train.micro_batch_size * config.data.sequence_len;
  constexpr int64_t kArrays = 4;  // ids, targets, positions, document_start
  return (kPrefetchDepth + 2) * tokens * kArrays * size_bytes(DType::i32);
}

DataFeed::DataFeed(const Config& config, const Mesh& mesh)
    : layout_(batch_layout(config, mesh)),
      options_(sampler_options(config)),
      eval_batches_(config.train.eval_batches) {
  const GivenVocabulary given = given_vocabulary(config.data);
  std::vector<SampleSource> sources;
  for (const DataSource& source : config.data.train) {
    files_.push_back(open_token_file(source.path, "train", given));
    sources.push_back({files_.back().get(), source.weight});
  }
  if (!config.data.validation.empty()) {
    validation_ = open_token_file(config.data.validation, "validation", given);
    check_same_vocabulary(*validation_, *files_.front());
  }
  sampler_ = std::make_unique<Sampler>(std::move(sources), options_);
}

std::string DataFeed::identity() const {
  std::vector<std::string> files;
  for (const auto& file : files_) {
    const auto documents = file->num_documents();
    files.push_back(
        absl::StrFormat("%d tokens%s, %s, checksum %s", file->num_tokens(),
                        documents ? absl::StrFormat(" in %d documents", *documents) : "",
                        describe(file->vocabulary()), crc32c_hex(probe(*file))));
  }
  return absl::StrJoin(files, "; ");
}

void DataFeed::start(int64_t first_step) {
  const int64_t micro_steps = layout_.num_micro_steps();
  const auto fill = [this, micro_steps](int64_t index, Batch& batch) {
    const SampleRange samples = rank_samples(layout_, index / micro_steps, index % micro_steps);
    batch.resize(samples.count, options_.sequence_len);
    sampler_->fill(samples, batch);
  };
  prefetcher_ = std::make_unique<Prefetcher>(fill, first_step * micro_steps, kPrefetchDepth);
}

// eval_batches counts global batches, so that the windows are the same in every layout.
int64_t DataFeed::num_validation_batches() const {
  const int64_t all = num_sequential_windows(*validation_, options_.sequence_len);
  const int64_t wanted = eval_batches_ > 0 ? eval_batches_ * layout_.global_batch_size : all;
  const int64_t per_batch = layout_.num_ranks * layout_.micro_batch_size;
  return (std::min(all, wanted) + per_batch - 1) / per_batch;
}

const Batch& DataFeed::validation_batch(int64_t index) {
  const int64_t first = (index * layout_.num_ranks + layout_.rank) * layout_.micro_batch_size;
  fill_sequential(*validation_, options_, {first, layout_.micro_batch_size}, validation_batch_);
  return validation_batch_;
}

}  // namespace caravan
