#include "launch/logits_run.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/match.h"
#include "launch/layout_rules.h"
#include "launch/run_state.h"
#include "launch/schema.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

void check_overrides(const std::vector<std::string>& overrides) {
  for (const std::string& text : overrides) {
    if (absl::StartsWith(text, "parallel.") || absl::StartsWith(text, "runtime.")) continue;
    throw config_error(absl::StrFormat(
        "%s: only keys of parallel and runtime can be given here, such as parallel.tp=2", text));
  }
}

bool says(const std::vector<std::string>& overrides, std::string_view key) {
  return std::ranges::any_of(
      overrides, [&](const std::string& text) { return text.starts_with(std::string(key) + "="); });
}

// Beside the arena: logits of two runs and one copy; the buffer of who reads files; what HDF5
// holds, three quarters of it code, which is resident from its first use on (measured: 4 MiB); and
// the code of kernels, which is loaded like that too (1 MiB), with something to spare. Between
// ranks, what MPI allocates for its first messages (measured: 4 MiB).
int64_t host_bytes(const Config& config, int num_processes) {
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  constexpr int64_t kCopies = 3, kReader = kMebibyte, kHdf5 = 4 * kMebibyte, kCode = 2 * kMebibyte;
  const int64_t messages = num_processes > 1 ? 4 * kMebibyte : 0;
  const int64_t logits = config.data.sequence_len * config.model.vocab_size;
  return kReader + kHdf5 + kCode + messages + kCopies * logits * size_bytes(DType::f32);
}

}  // namespace

Config logits_config(const LogitsRequest& request, int num_processes) {
  check_overrides(request.overrides);
  Config config;
  config.output_dir = "none";  // what a training run must say; nothing of it is used
  config.data.train = {{.path = "none"}};
  config.optimizer.learning_rate = 1;
  config.optimizer.warmup_steps = 0;
  config.model = request.model;
  config.data.sequence_len = std::max<int64_t>(2, request.num_tokens);
  config.train.max_steps = 1;
  config.train.micro_batch_size = config.train.global_batch_size = 1;
  config.checkpoint.copy_bytes = 0;
  config = parse_config(to_yaml(config), "configuration", request.overrides);
  const ParallelSizes sizes = parallel_sizes(config.parallel, num_processes);
  if (sizes.dp > 1 && !says(request.overrides, "parallel.zero")) config.parallel.zero = 3;
  config.train.global_batch_size = sizes.num_batch_parts();
  validate(config, num_processes);
  return config;
}

LogitsRun::LogitsRun(const Config& config, MpiSession& mpi)
    : session_(
          config, mpi,
          {.purpose = RunPurpose::logits, .host_bytes = host_bytes(config, mpi.world().size())}),
      columns_(local_box({config.model.vocab_size}, Placement{}.with(Axis::tp, shard(0)),
                         session_.mesh())) {}

void LogitsRun::load(WeightSource& weights) {
  load_weights(session_.plan(), session_.mesh(), session_.backend(), session_.arena(), weights,
               session_.progress());
}

std::vector<float> LogitsRun::compute(std::span<const int32_t> tokens) {
  const int64_t length = session_.config().data.sequence_len;
  check(std::ssize(tokens) <= length, "%d tokens for a program of %d", tokens.size(), length);
  Executor& executor = session_.executor("logits");
  // Tokens behind the last one change nothing before them.
  std::vector<int32_t> ids(static_cast<size_t>(length), 0), positions(ids.size());
  std::ranges::copy(tokens, ids.begin());
  std::iota(positions.begin(), positions.end(), 0);
  const auto set = [&](std::string_view name, const std::vector<int32_t>& values) {
    const TensorView& to = executor.input(name);
    session_.backend().copy_in(to.data, values.data(), to.size() * size_bytes(to.dtype));
  };
  set("input_ids", ids);
  set("positions", positions);
  set("document_start", std::vector<int32_t>(ids.size(), 0));
  executor.run();
  std::vector<float> logits(static_cast<size_t>(length * num_columns()));
  executor.output("logits", logits);
  logits.resize(tokens.size() * static_cast<size_t>(num_columns()));
  return logits;
}

LogitsDifference compare_logits(Communicator& world, std::span<const float> a,
                                std::span<const float> b, int64_t num_columns) {
  check(a.size() == b.size(), "%d logits against %d", a.size(), b.size());
  LogitsDifference mine;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool both_nan = std::isnan(a[i]) && std::isnan(b[i]);
    double difference = both_nan || a[i] == b[i] ? 0 : std::abs(double{a[i]} - double{b[i]});
    if (std::isnan(difference)) difference = std::numeric_limits<double>::infinity();
    if (difference > mine.largest) {
      mine.largest = difference;
      mine.token = static_cast<int64_t>(i) / num_columns;
    }
    mine.largest_logit = std::max(mine.largest_logit, std::abs(double{b[i]}));
  }
  std::vector<LogitsDifference> all(static_cast<size_t>(world.size()));
  world.all_gather(&mine, all.data(), sizeof(mine));
  LogitsDifference result = *std::ranges::max_element(all, {}, &LogitsDifference::largest);
  for (const LogitsDifference& other : all) {
    result.largest_logit = std::max(result.largest_logit, other.largest_logit);
  }
  return result;
}

std::vector<int32_t> probe_tokens(int64_t vocab_size, int64_t count) {
  const RandomStream stream(1, RandomPurpose::shuffle, stable_hash("tokens to compare logits on"));
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    const double position = stream.uniform(static_cast<uint64_t>(i));
    tokens.push_back(static_cast<int32_t>(std::min<double>(
        position * static_cast<double>(vocab_size), static_cast<double>(vocab_size - 1))));
  }
  return tokens;
}

}  // namespace caravan
