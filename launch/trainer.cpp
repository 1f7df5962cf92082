#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "absl/strings/str_format.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
#include "optim/lr_schedule.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

LrSchedule lr_schedule(const Config& config) {
  const OptimizerConfig& o = config.optimizer;
  return {.kind = o.lr_scheduler_type,
          .peak = o.learning_rate,
          .min_ratio = o.min_lr_ratio,
          .warmup_steps = o.warmup_steps,
          .decay_steps = o.decay_steps,
          .max_steps = config.train.max_steps};
}

void set_batch(Executor& executor, Backend& backend, const Batch& batch) {
  const auto copy = [&](std::string_view name, const std::vector<int32_t>& from) {
    const TensorView to = executor.input(name);
    check(to.size() == std::ssize(from), "input '%s' takes %d tokens, the batch has %d", name,
          to.size(), from.size());
    backend.copy_in(to.data, from.data(), to.size() * size_bytes(to.dtype));
  };
  copy("input_ids", batch.ids);
  copy("targets", batch.targets);
  copy("positions", batch.positions);
  copy("document_start", batch.document_start);
}

std::string from_first_rank(Communicator& world, const std::string& text) {
  return gather_strings(world, world.rank() == 0 ? text : "")[0];
}

RankGroup rank_group(Communicator& world) {
  return {.rank = world.rank(),
          .num_ranks = world.size(),
          .gather = [&](const std::string& mine) { return gather_strings(world, mine); },
          .broadcast = [&](const std::string& text) { return from_first_rank(world, text); }};
}

}  // namespace

Trainer::Trainer(const Config& config, MpiSession& mpi, SignalWatch& signals,
                 const TrainerOptions& options)
    : config_(with_data_vocabulary(config)), signals_(signals), options_(options) {
  Communicator& world = mpi.world();
  validate(config_, world.size());
  const bool is_first = world.rank() == 0;
  if (is_first) folder_ = std::make_unique<RunFolder>(config_);
  data_ =
      std::make_unique<DataFeed>(config_, make_mesh(config_, world.size()).with_rank(world.rank()));
  session_ = std::make_unique<Session>(config_, mpi,
                                       SessionOptions{.observer = options.observer,
                                                      .host_bytes = feed_bytes(config_),
                                                      .after_node = options.after_node,
                                                      .progress = options.progress});
  group_ = rank_group(session_->world());
  if (is_first) console_ = std::make_unique<Console>(console_options(config_.log.logging_steps));
  run_id_ = from_first_rank(session_->world(),
                            absl::StrFormat("%016x", static_cast<uint64_t>(unix_seconds() * 1e6)));
}

bool Trainer::run() {
  begin();
  show_start();
  while (step_ < config_.train.max_steps) {
    const StepResult result = train_step();
    report(result);
    evaluate_when_due();
    if (save_when_due()) return false;
  }
  if (data_->has_validation() && !validation_loss_) validation_loss_ = evaluate();
  session_->progress().enter(Phase::done);
  show_summary();
  return true;
}

void Trainer::begin() {
  session_->progress().enter(Phase::loading);
  std::string path;
  if (folder_) {
    std::vector<std::string> warnings;
    path = folder_->checkpoint_to_resume(warnings);
    for (const std::string& text : warnings) console_->warn(text, text);
  }
  path = from_first_rank(session_->world(), path);
  if (path.empty()) {
    initialize_parameters(session_->plan(), session_->mesh(), session_->arena(),
                          static_cast<uint64_t>(config_.train.seed), session_->num_threads(),
                          session_->progress());
  } else {
    resume(path);
  }
  data_->start(step_);
  session_->world().barrier();  // nothing failed anywhere: now the folder may change
  if (!folder_) return;
  folder_->save_config();
  if (config_.log.report_to.empty()) return;
  metrics_ = std::make_unique<MetricsFile>(metrics_path(config_));
  if (!path.empty() && step_ < config_.train.max_steps) metrics_->resume(step_);
}

void Trainer::resume(const std::string& path) {
  if (console_) console_->line(absl::StrFormat("resuming from %s", path));
  CheckpointReader checkpoint(path);
  const CheckpointHeader& header = checkpoint.manifest().header;
  check_changes(header);
  load_persistent(session_->plan(), session_->mesh(), session_->arena(), checkpoint,
                  session_->progress());
  step_ = header.step;
  tokens_ = header.tokens;
  run_id_ = header.run_id;
  last_checkpoint_ = path;
  if (const auto loss = header.scalars.find("loss"); loss != header.scalars.end()) {
    train_loss_ = loss->second;
  }
}

// Another model is refused. Other data or another optimizer is another run from here on: only when
// somebody says so. The number of steps and whatever changes no result may change.
void Trainer::check_changes(const CheckpointHeader& header) const {
  const auto saved = header.texts.find("config");
  if (saved == header.texts.end()) return;
  for (const ConfigChange& change :
       changed_keys(parse_config(saved->second, "the checkpoint's configuration"), config_)) {
    const auto in = [&](std::string_view prefix) { return change.path.starts_with(prefix); };
    const std::string what =
        absl::StrFormat("%s was %s when the checkpoint was saved and is %s now", change.path,
                        change.before, change.after);
    const bool is_of_start =
        change.path == "model.initializer_range" || change.path == "model.max_position_embeddings";
    if (in("model.") && !is_of_start) {
      throw checkpoint_error(
          what + "; that is another model: change it back, or choose another output_dir");
    }
    const bool is_of_run = in("optimizer.") || (in("data.") && !in("data.validation")) ||
                           in("train.seed") || in("train.global_batch_size");
    if (!is_of_run) continue;
    if (!options_.allow_config_change) {
      throw config_error(what + "; change it back, or pass --allow-config-change");
    }
    if (console_) console_->warn(change.path, what);
  }
}

void Trainer::show_start() const {
  if (!console_) return;
  const Session& s = *session_;
  const int64_t batch = config_.train.global_batch_size;
  console_->table({
      {"run folder", config_.output_dir},
      {"parameters", format_parameters(num_parameters(s.plan()))},
      {"mesh", to_string(s.mesh())},
      {"device", session_->backend().description()},
      {"ZeRO stage", std::to_string(config_.parallel.zero)},
      {"tokens per step", format_count(batch * config_.data.sequence_len)},
      {"batch", absl::StrFormat("%d sequences of %d: %d x %d micro steps x %d ranks", batch,
                                config_.data.sequence_len, config_.train.micro_batch_size,
                                s.plan().accumulation_steps, s.mesh().size(Axis::dp))},
      {"steps", absl::StrFormat("%d of %d done", step_, config_.train.max_steps)},
      {"memory planned",
       absl::StrFormat("%s per rank: %s arena, %s the rest; limit %s (%s)",
                       format_bytes(s.planned_bytes()), format_bytes(s.plan().arena_bytes()),
                       format_bytes(s.planned_bytes() - s.plan().arena_bytes()),
                       format_bytes(s.limit().bytes), s.limit().source)},
      {"checkpoints", config_.checkpoint.save_steps > 0
                          ? absl::StrFormat("every %d steps", config_.checkpoint.save_steps)
                          : "at the end"},
  });
}

Trainer::StepResult Trainer::train_step() {
  session_->progress().begin_step(step_ + 1);
  const auto start = Clock::now();
  const double waited = data_->wait_seconds();
  const int64_t micro_steps = session_->plan().accumulation_steps;
  Executor& update = session_->executor("update");
  const double rate = learning_rate(lr_schedule(config_), step_ + 1);
  for (int64_t micro = 0; micro < micro_steps; ++micro) {
    const bool is_last = micro + 1 == micro_steps;
    Executor& executor = is_last ? update : session_->executor("accumulate");
    session_->progress().enter(Phase::waiting_for_data);
    set_batch(executor, session_->backend(), data_->next());
    session_->progress().enter(Phase::computing);
    if (micro_steps > 1) executor.set_input("keep", micro == 0 ? 0.0f : 1.0f);
    if (is_last) {
      executor.set_input("learning_rate", static_cast<float>(rate));
      executor.set_input("step", static_cast<float>(step_ + 1));
    }
    executor.run();
  }
  ++step_;
  tokens_ += config_.train.global_batch_size * config_.data.sequence_len;
  return {.loss = update.output("loss"),
          .grad_norm = update.output("grad_norm"),
          .learning_rate = rate,
          .seconds = seconds_since(start),
          .data_seconds = data_->wait_seconds() - waited};
}

double Trainer::eta_seconds() const {
  const auto left = static_cast<double>(config_.train.max_steps - step_);
  return left * train_seconds_ / static_cast<double>(steps_here_);
}

void Trainer::report(const StepResult& result) {
  ++steps_here_;
  train_seconds_ += result.seconds;
  data_seconds_ += result.data_seconds;
  train_loss_ = result.loss;
  if (!std::isfinite(result.loss) || !std::isfinite(result.grad_norm)) {
    throw Error(ExitCode::diverged,
                absl::StrFormat("loss %g, gradient norm %g at step %d; lower learning_rate, and go "
                                "on from %s",
                                result.loss, result.grad_norm, step_,
                                last_checkpoint_.empty() ? "the start" : last_checkpoint_));
  }
  if (!console_) return;
  const double tokens =
      static_cast<double>(config_.train.global_batch_size * config_.data.sequence_len);
  StepMetrics m;
  m.step = step_;
  m.max_steps = config_.train.max_steps;
  m.time_seconds = unix_seconds();
  m.loss = result.loss;
  m.grad_norm = result.grad_norm;
  m.learning_rate = result.learning_rate;
  m.tokens = tokens_;
  m.step_ms = result.seconds * 1e3;
  m.tokens_per_second = tokens / result.seconds;
  m.memory_bytes = resident_bytes();
  m.memory_limit_bytes = session_->limit().bytes;
  m.data_ms = result.data_seconds * 1e3;
  m.eta_seconds = eta_seconds();
  console_->step(m);
  if (metrics_) metrics_->step(m);
  const double share = data_seconds_ / train_seconds_;
  if (steps_here_ >= 10 && share > 0.05) {
    console_->warn("data",
                   absl::StrFormat("waiting for data takes %.0f %% of the time", share * 100));
  }
}

void Trainer::evaluate_when_due() {
  const int64_t every = config_.train.eval_steps;
  if (!data_->has_validation() || every == 0) return;
  if (step_ % every != 0 && !is_last_step()) return;
  validation_loss_ = evaluate();
  if (!console_) return;
  console_->line(absl::StrFormat("step %d | validation loss %.4f | perplexity %.2f", step_,
                                 *validation_loss_, std::exp(*validation_loss_)));
  if (metrics_) metrics_->evaluation(step_, *validation_loss_);
}

double Trainer::evaluate() {
  session_->progress().enter(Phase::evaluating);
  Executor& executor = session_->executor("evaluate");
  double loss_sum = 0, num_valid = 0;
  for (int64_t i = 0; i < data_->num_validation_batches(); ++i) {
    set_batch(executor, session_->backend(), data_->validation_batch(i));
    executor.run();
    loss_sum += executor.output("loss_sum");
    num_valid += executor.output("num_valid");
  }
  return loss_sum / num_valid;
}

bool Trainer::save_when_due() {
  session_->progress().enter(Phase::agreeing);
  const SignalRequest request = signals_.take(session_->world());
  const int64_t every = config_.checkpoint.save_steps;
  const bool is_due = is_last_step() || (every > 0 && step_ % every == 0);
  if (is_due || request != SignalRequest::none) save();
  return request == SignalRequest::save_and_stop && !is_last_step();
}

void Trainer::save() {
  session_->progress().enter(Phase::saving);
  const Mesh& mesh = session_->mesh();
  SaveRequest request;
  request.folder = checkpoints_folder(config_);
  request.header.run_id = run_id_;
  request.header.step = step_;
  request.header.tokens = tokens_;
  request.header.config_hash = config_hash(config_);
  request.header.tool_version = CARAVAN_VERSION;
  for (const Axis axis : kAxes) request.header.layout[std::string(name(axis))] = mesh.size(axis);
  request.header.layout["zero"] = config_.parallel.zero;
  request.header.scalars["loss"] = *train_loss_;
  if (validation_loss_) request.header.scalars["validation_loss"] = *validation_loss_;
  request.header.texts["config"] = to_yaml(config_);
  request.shards = shards_to_save(session_->plan(), mesh, session_->arena());
  request.save_total_limit = config_.checkpoint.save_total_limit;
  const SavedCheckpoint saved = save_checkpoint(request, group_);
  last_checkpoint_ = saved.path;
  if (!console_) return;
  for (const std::string& text : saved.warnings) console_->warn(text, text);
  console_->line(absl::StrFormat("step %d | saved %s (%s)", step_, saved.path,
                                 format_bytes(saved.size_bytes)));
}

void Trainer::show_summary() const {
  if (!console_) return;
  const auto number = [](const std::optional<double>& value) {
    return value ? absl::StrFormat("%.4f", *value) : std::string("not measured");
  };
  std::vector<std::pair<std::string, std::string>> rows = {
      {"train loss", number(train_loss_)},
      {"validation loss", number(validation_loss_)},
      {"tokens", format_count(tokens_)},
  };
  if (steps_here_ > 0) {
    const double tokens = static_cast<double>(steps_here_ * config_.train.global_batch_size *
                                              config_.data.sequence_len);
    rows.emplace_back("tokens/s", format_count(std::llround(tokens / train_seconds_)));
    rows.emplace_back("waiting for data",
                      absl::StrFormat("%.2f %% of the time", data_seconds_ / train_seconds_ * 100));
  }
  rows.emplace_back("memory per rank", absl::StrFormat("%s planned, %s measured at most",
                                                       format_bytes(session_->planned_bytes()),
                                                       format_bytes(peak_resident_bytes())));
  rows.emplace_back("checkpoint", last_checkpoint_);
  console_->line(steps_here_ > 0 ? "done" : "this run is done already: nothing was left to train");
  console_->table(rows);
  console_->line(absl::StrFormat(
      "next: look into it with  build/caravan ckpt show %s\n"
      "      train on with      build/caravan train %s/config.yaml train.max_steps=%d",
      last_checkpoint_, config_.output_dir, 2 * std::max(step_, config_.train.max_steps)));
}

}  // namespace caravan
