#include "data/batch.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan {

void Batch::resize(int64_t samples, int64_t length) {
  num_samples = samples;
  sequence_len = length;
  const auto size = static_cast<size_t>(samples * length);
  for (std::vector<int32_t>* array : {&ids, &targets, &positions, &document_start}) {
    array->resize(size);
  }
}

int64_t Batch::num_targets() const {
  return std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t != kIgnore; });
}

void fill_row(Batch& batch, int64_t row, std::span<const int32_t> window,
              const DocumentRules& rules) {
  const int64_t length = batch.sequence_len;
  const auto num_tokens = static_cast<int64_t>(window.size());
  check(row >= 0 && row < batch.num_samples && num_tokens <= length + 1,
        "batch: row %d of %d, window of %d for %d", row, batch.num_samples, num_tokens, length);
  int64_t start = 0;
  for (int64_t i = 0; i < length; ++i) {
    const auto at = static_cast<size_t>(row * length + i);
    const bool is_token = i < num_tokens;
    const int32_t id = is_token ? window[static_cast<size_t>(i)] : rules.eos_id;
    const bool has_next = i + 1 < num_tokens && (rules.attend_across || id != rules.eos_id);
    batch.ids[at] = id;
    batch.targets[at] = has_next ? window[static_cast<size_t>(i + 1)] : kIgnore;
    batch.positions[at] = static_cast<int32_t>(i - start);
    batch.document_start[at] = static_cast<int32_t>(start);
    if (id == rules.eos_id && !rules.attend_across) start = i + 1;
  }
}

int64_t BatchLayout::num_micro_steps() const {
  const int64_t rows = micro_batch_size * num_ranks;
  if (rows > 0 && global_batch_size > 0 && global_batch_size % rows == 0) {
    return global_batch_size / rows;
  }
  throw config_error(absl::StrFormat(
      "train.global_batch_size: %d is not a multiple of micro_batch_size %d x %d data-parallel "
      "ranks = %d: change one of them",
      global_batch_size, micro_batch_size, num_ranks, rows));
}

SampleRange rank_samples(const BatchLayout& layout, int64_t step, int64_t micro_step) {
  check(step >= 0 && micro_step >= 0 && micro_step < layout.num_micro_steps() && layout.rank >= 0 &&
            layout.rank < layout.num_ranks,
        "rank_samples: step %d, micro step %d, rank %d of %d", step, micro_step, layout.rank,
        layout.num_ranks);
  const int64_t rows = layout.micro_batch_size * layout.num_ranks;
  const int64_t first = step * layout.global_batch_size + micro_step * rows;
  return {first + layout.rank * layout.micro_batch_size, layout.micro_batch_size};
}

}  // namespace caravan
