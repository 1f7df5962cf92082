#include "launch/saver.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_format.h"
#include "checkpoint/directory.h"
#include "checkpoint/posix_file.h"
#include "launch/run_folder.h"
#include "launch/run_state.h"
#include "runtime/error.h"

namespace caravan {
namespace {

int64_t saves_to_come(const Config& config, int64_t step) {
  const int64_t left = config.train.max_steps - step;
  const int64_t every = config.checkpoint.save_steps;
  if (left <= 0) return 0;
  return every == 0 ? 1 : (left + every - 1) / every;
}

}  // namespace

Saver::Saver(const Config& config, Session& session, Console* console, std::string attempt,
             std::string data_identity)
    : config_(config),
      session_(session),
      console_(console),
      attempt_(std::move(attempt)),
      data_identity_(std::move(data_identity)),
      save_(
          session.world(), writer_, session.checkpoint_copy(),
          [&session] { session.progress().moved(); },
          [&session](void* host, const void* live, int64_t bytes) {
            session.backend().copy_out_settled(host, live, bytes);
          }) {}

// While it lives, training waits for a save.
class Saver::Wait {
 public:
  explicit Wait(Saver& saver)
      : saver_(saver), progress_(saver.session_.progress()), before_(progress_.read().phase) {
    progress_.enter(Phase::saving);
  }
  ~Wait() {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    saver_.wait_seconds_ += seconds;
    saver_.save_wait_seconds_ += seconds;
    progress_.enter(before_);
  }
  Wait(const Wait&) = delete;
  Wait& operator=(const Wait&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  Saver& saver_;
  Progress& progress_;
  Phase before_;
  Clock::time_point start_ = Clock::now();
};

// A new checkpoint is whole before the oldest goes, so one more than the limit must fit.
void Saver::check_space(int64_t step) const {
  const int64_t to_come = saves_to_come(config_, step);
  if (to_come == 0) return;
  const std::string folder = checkpoints_folder(config_);
  const auto existing = static_cast<int64_t>(list_step_folders(folder).size());
  const int64_t at_a_time = std::min(config_.checkpoint.save_total_limit + 1, existing + to_come);
  const int64_t count = std::max<int64_t>(1, at_a_time - existing);
  const int64_t one = checkpoint_bytes(session_.plan()) / 100 * 101 + (int64_t{1} << 16);
  const int64_t available = available_bytes(folder);
  if (count * one <= available) return;
  throw checkpoint_error(absl::StrFormat(
      "%s: %d more checkpoints of %s will lie there at a time, but its file system has %s left; "
      "free some space, lower checkpoint.save_total_limit, or choose another output_dir",
      folder, count, format_bytes(one), format_bytes(available)));
}

SaveRequest Saver::request_for(const TrainingState& state) const {
  const Mesh& mesh = session_.mesh();
  SaveRequest request;
  request.folder = checkpoints_folder(config_);
  store(state, request.header);
  request.header.config_hash = config_hash(config_);
  request.header.tool_version = CARAVAN_VERSION;
  for (const Axis axis : kAxes) request.header.layout[std::string(name(axis))] = mesh.size(axis);
  request.header.layout["zero"] = config_.parallel.zero;
  request.header.texts["config"] = to_yaml(config_);
  request.header.texts[kDataIdentity] = data_identity_;
  request.shards = shards_to_save(session_.plan(), mesh, session_.arena());
  if (session_.is_first_rank()) request.assets = run_assets(config_);
  request.save_total_limit = config_.checkpoint.save_total_limit;
  request.attempt = attempt_;
  return request;
}

void Saver::begin(const TrainingState& state) {
  finish(false);
  const Wait wait(*this);
  step_ = state.step;
  save_.begin(request_for(state));
}

void Saver::advance(std::span<const SaveStage> stages) {
  if (const auto result = save_.advance(stages)) settle(*result, false);
}

void Saver::detach() {
  if (!save_.in_flight()) return;
  const Wait wait(*this);
  save_.detach();
}

void Saver::finish(bool must_succeed) {
  if (!save_.in_flight()) return;
  SaveResult result;
  {
    const Wait wait(*this);
    result = save_.finish();
  }
  settle(result, must_succeed);
}

void Saver::settle(const SaveResult& result, bool must_succeed) {
  const double waited = std::exchange(save_wait_seconds_, 0);
  if (!result.error.empty()) {
    const std::string what =
        absl::StrFormat("step %d could not be saved: %s; %s", step_, result.error,
                        last_checkpoint_.empty() ? "there is no checkpoint yet"
                                                 : "the newest checkpoint is " + last_checkpoint_);
    if (must_succeed || config_.checkpoint.on_save_error == OnSaveError::stop) {
      throw checkpoint_error(what);
    }
    if (console_) console_->warn(what, what);
    return;
  }
  last_checkpoint_ = result.saved.path;
  if (!console_) return;
  for (const std::string& text : result.saved.warnings) console_->warn(text, text);
  console_->line(absl::StrFormat("step %d | saved %s (%s in %s, training waited %s)", step_,
                                 result.saved.path, format_bytes(result.saved.size_bytes),
                                 format_milliseconds(result.seconds * 1e3),
                                 format_milliseconds(waited * 1e3)));
}

double Saver::take_wait_seconds() { return std::exchange(wait_seconds_, 0); }

}  // namespace caravan
