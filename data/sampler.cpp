#include "data/sampler.h"

#include <algorithm>

#include "data/permutation.h"
#include "runtime/error.h"

namespace caravan {
namespace {

std::vector<double> weights_of(const std::vector<SampleSource>& sources) {
  std::vector<double> weights;
  for (const SampleSource& source : sources) weights.push_back(source.weight);
  return weights;
}

void check_source(const SampleSource& source, const SampleSource& first, int64_t sequence_len) {
  const TokenFile& file = *source.file;
  if (file.num_tokens() < sequence_len + 1) {
    throw data_error(absl::StrFormat(
        "%s: %d tokens are fewer than one sample of data.sequence_len %d + 1: add text or lower "
        "data.sequence_len",
        file.path(), file.num_tokens(), sequence_len));
  }
  check_same_vocabulary(file, *first.file);
}

// The order of a source's windows in one epoch. The stream's index holds both numbers.
Permutation epoch_order(uint64_t seed, int source, int64_t epoch, int64_t num_windows) {
  check(epoch < int64_t{1} << 48, "sampler: epoch %d", epoch);
  const uint64_t index = static_cast<uint64_t>(source) << 48 | static_cast<uint64_t>(epoch);
  return {num_windows, RandomStream(seed, RandomPurpose::shuffle, index)};
}

// One row of the batch from one window; from nothing where the file has no such window.
void fill_window(const TokenFile& file, int64_t window, const SamplerOptions& options, Batch& batch,
                 int64_t row) {
  const int64_t first = window * options.sequence_len;
  const int64_t count = std::clamp<int64_t>(file.num_tokens() - first, 0, options.sequence_len + 1);
  batch.window.resize(static_cast<size_t>(count));
  if (count > 0) file.read(first, batch.window);
  fill_row(batch, row, batch.window, {file.vocabulary().eos_id, options.attend_across_documents});
}

}  // namespace

Sampler::Sampler(std::vector<SampleSource> sources, const SamplerOptions& options)
    : sources_(std::move(sources)),
      options_(options),
      mixture_(weights_of(sources_), options.seed) {
  check(options.sequence_len >= 1, "sampler: sequence_len %d", options.sequence_len);
  for (const SampleSource& source : sources_) {
    check_source(source, sources_.front(), options.sequence_len);
    num_windows_.push_back((source.file->num_tokens() - 1) / options.sequence_len);
  }
}

SampleLocation Sampler::locate(int64_t sample) const {
  const MixtureSlot slot = mixture_.slot(sample);
  const int64_t windows = num_windows(slot.source);
  const int64_t epoch = slot.index / windows;
  const Permutation order = epoch_order(options_.seed, slot.source, epoch, windows);
  return {slot.source, epoch, order[slot.index % windows]};
}

void Sampler::fill(SampleRange samples, Batch& batch, int64_t row) const {
  for (int64_t i = 0; i < samples.count; ++i) {
    const SampleLocation location = locate(samples.first + i);
    const TokenFile& file = *sources_[static_cast<size_t>(location.source)].file;
    fill_window(file, location.window, options_, batch, row + i);
  }
}

int64_t Sampler::num_windows(int source) const { return num_windows_[static_cast<size_t>(source)]; }

double Sampler::epoch(int source, int64_t sample) const {
  const auto per_block = static_cast<double>(mixture_.samples_per_block(source));
  const double share = per_block / static_cast<double>(Mixture::kBlock);
  return static_cast<double>(sample) * share / static_cast<double>(num_windows(source));
}

int64_t num_sequential_windows(const TokenFile& file, int64_t sequence_len) {
  return file.num_tokens() < 2 ? 0 : (file.num_tokens() - 2) / sequence_len + 1;
}

void fill_sequential(const TokenFile& file, const SamplerOptions& options, SampleRange windows,
                     Batch& batch) {
  batch.resize(windows.count, options.sequence_len);
  for (int64_t row = 0; row < windows.count; ++row) {
    fill_window(file, windows.first + row, options, batch, row);
  }
}

}  // namespace caravan
