#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "absl/strings/str_format.h"
#include "launch/clock.h"
#include "launch/device.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
#include "launch/start_weights.h"
#include "optim/lr_schedule.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

using Clock = std::chrono::steady_clock;

void set_batch(Executor& executor, Backend& backend, const Batch& batch) {
  const auto copy = [&](std::string_view name, const std::vector<int32_t>& from) {
    const TensorView& to = executor.input(name);
    check(to.size() == std::ssize(from), "input '%s' takes %d tokens, the batch has %d", name,
          to.size(), from.size());
    backend.copy_in(to.data, from.data(), to.size() * size_bytes(to.dtype));
  };
  copy("input_ids", batch.ids);
  copy("targets", batch.targets);
  copy("positions", batch.positions);
  copy("document_start", batch.document_start);
}

// A name that no other start of a run has.
std::string new_name(Communicator& world) {
  const auto microseconds = static_cast<uint64_t>(unix_seconds() * 1e6);
  return gather_strings(world, absl::StrFormat("%016x", microseconds))[0];
}

// The same on all ranks, each of which may have files of its own.
std::string common_identity(Communicator& world, const DataFeed& data) {
  const std::vector<std::string> all = gather_strings(world, data.identity());
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw data_error(
        absl::StrFormat("data.train is not the same on all ranks: rank %d has %s, rank 0 has %s; "
                        "copy it to all machines anew",
                        rank, all[rank], all[0]));
  }
  return all[0];
}

// Who reads other tokens than the others: "4 ranks", "2 groups of 2 ranks".
std::string batch_parts(const Mesh& mesh) {
  const int parts = mesh.size(Axis::dp) * mesh.size(Axis::ep), tp = mesh.size(Axis::tp);
  if (tp == 1) return absl::StrFormat("%d ranks", parts);
  return absl::StrFormat("%d groups of %d ranks", parts, tp);
}

// "286.1 MiB per rank: 195.3 MiB arena, 90.9 MiB the rest; limit 10.82 GiB (auto: ...)"; with a
// device "70.1 GiB of the device per rank, 1.2 GiB of the host; limit ...".
std::string describe_memory(const Session& session) {
  const MemoryReport report = session.memory_report();
  const std::string limit =
      absl::StrFormat("limit %s (%s)", format_bytes(session.limit().bytes), session.limit().source);
  if (report.is_on_device) {
    return absl::StrFormat("%s of the device per rank, %s of the host; %s",
                           format_bytes(report.arena_bytes), format_bytes(report.host_bytes()),
                           limit);
  }
  return absl::StrFormat("%s per rank: %s arena, %s the rest; %s",
                         format_bytes(report.process_bytes()), format_bytes(report.arena_bytes),
                         format_bytes(report.host_bytes()), limit);
}

}  // namespace

Trainer::Trainer(const Config& config, MpiSession& mpi, SignalWatch& signals,
                 const TrainerOptions& options)
    : config_(with_data_vocabulary(config)), signals_(signals), options_(options) {
  Communicator& world = mpi.world();
  validate(config_, world.size());
  choose_device(config_);  // before a run folder is made
  const bool is_first = world.rank() == 0;
  if (is_first) folder_ = std::make_unique<RunFolder>(config_);
  data_ =
      std::make_unique<DataFeed>(config_, make_mesh(config_, world.size()).with_rank(world.rank()));
  session_ = std::make_unique<Session>(config_, mpi,
                                       SessionOptions{.observer = options.observer,
                                                      .host_bytes = feed_bytes(config_),
                                                      .before_update = [this] { saver_->detach(); },
                                                      .after_node = options.after_node,
                                                      .progress = options.progress});
  const Mesh& mesh = session_->mesh();
  routers_ = RouterMetrics(
      session_->plan().program("update").graph,
      session_->plan().accumulation_steps * mesh.size(Axis::dp) * mesh.size(Axis::ep));
  if (is_first) console_ = std::make_unique<Console>(console_options(config_.log.logging_steps));
  votes_.resize(static_cast<size_t>(world.size()));
  stages_.resize(votes_.size());
  state_.run_id = new_name(session_->world());
  options_.resume.data_identity = common_identity(session_->world(), *data_);
  saver_ = std::make_unique<Saver>(config_, *session_, console_.get(), state_.run_id.substr(8),
                                   options_.resume.data_identity);
}

bool Trainer::run() {
  begin();
  show_start();
  while (state_.step < config_.train.max_steps) {
    StepResult result = train_step();
    account(result);
    report(result);
    stop_when_sick(result);
    evaluate_when_due();
    if (save_when_due()) return false;
  }
  if (data_->has_validation() && !state_.validation_loss) state_.validation_loss = evaluate();
  session_->progress().enter(Phase::done);
  show_summary();
  return true;
}

void Trainer::begin() {
  session_->progress().enter(Phase::loading);
  ResumeChoice choice;
  if (folder_) {
    choice = folder_->choose_resume();
    for (const std::string& text : choice.warnings) console_->warn(text, text);
  }
  auto resumed = resume_run(choice, *session_, console_.get(), options_.resume);
  if (resumed) {
    state_ = std::move(resumed->state);
    saver_->set_last_checkpoint(resumed->path);
  } else {
    load_start_weights(*session_, console_.get());
  }
  if (folder_) saver_->check_space(state_.step);
  data_->start(state_.step);
  session_->world().barrier();  // nothing failed anywhere: now the folder may change
  if (!folder_) return;
  folder_->save_config();
  const std::vector<Asset> assets = start_assets(config_, resumed ? resumed->path : "");
  const std::string warning = tokenizer_warning(data_->vocabulary().tokenizer_hash, assets);
  if (!warning.empty()) console_->warn("tokenizer", warning);
  folder_->save_assets(assets);
  open_metrics(resumed.has_value());
}

void Trainer::open_metrics(bool resumed) {
  if (config_.log.report_to.empty()) return;
  metrics_ = std::make_unique<MetricsFile>(metrics_path(config_));
  if (resumed && state_.step < config_.train.max_steps) metrics_->resume(state_.step);
}

void Trainer::show_start() const {
  if (!console_) return;
  const Session& s = *session_;
  const int64_t batch = config_.train.global_batch_size;
  std::vector<std::pair<std::string, std::string>> rows = {
      {"run folder", config_.output_dir},
      {"parameters", format_parameters(num_parameters(s.plan()))},
      {"mesh", describe_mesh(config_, s.mesh())},
      {"device", session_->backend().description()},
      {"dtype", config_.runtime.dtype == DType::bf16 ? "bfloat16" : "float32"},
      {"ZeRO stage", std::to_string(config_.parallel.zero)},
      {"tokens per step", format_count(batch * config_.data.sequence_len)},
      {"batch", absl::StrFormat("%d sequences of %d: %d x %d micro steps x %s", batch,
                                config_.data.sequence_len, config_.train.micro_batch_size,
                                s.plan().accumulation_steps, batch_parts(s.mesh()))},
      {"steps", absl::StrFormat("%d of %d done", state_.step, config_.train.max_steps)},
      {"memory planned", describe_memory(s)},
      {"checkpoints", config_.checkpoint.save_steps > 0
                          ? absl::StrFormat("every %d steps", config_.checkpoint.save_steps)
                          : "at the end"},
  };
  if (!s.communication().empty())
    rows.insert(rows.begin() + 5, {"communication", s.communication()});
  console_->table(rows);
}

Trainer::StepResult Trainer::train_step() {
  session_->progress().begin_step(state_.step + 1);
  const auto start = Clock::now();
  const double waited = data_->wait_seconds();
  const int64_t micro_steps = session_->plan().accumulation_steps;
  Executor& update = session_->executor("update");
  const double rate = learning_rate(lr_schedule(config_), state_.step + 1);
  for (int64_t micro = 0; micro < micro_steps; ++micro) {
    const bool is_last = micro + 1 == micro_steps;
    Executor& executor = is_last ? update : session_->executor("accumulate");
    session_->progress().enter(Phase::waiting_for_data);
    set_batch(executor, session_->backend(), data_->next());
    session_->progress().enter(Phase::computing);
    if (micro_steps > 1) executor.set_input("keep", micro == 0 ? 0.0f : 1.0f);
    if (is_last) {
      executor.set_input("learning_rate", static_cast<float>(rate));
      executor.set_input("step", static_cast<float>(state_.num_updates() + 1));
    }
    executor.run();
  }
  routers_.read(update);
  const double loss = update.output("loss"), grad_norm = update.output("grad_norm");
  return {.is_skipped = !std::isfinite(loss) || !std::isfinite(grad_norm),
          .loss = loss,
          .grad_norm = grad_norm,
          .learning_rate = rate,
          .seconds = seconds_since(start),
          .data_seconds = data_->wait_seconds() - waited};
}

double Trainer::eta_seconds() const {
  const auto left = static_cast<double>(config_.train.max_steps - state_.step);
  return left * train_seconds_ / static_cast<double>(steps_here_);
}

// Loss and norm are the same on all ranks, and so is all that follows from them.
void Trainer::account(StepResult& result) {
  ++steps_here_;
  train_seconds_ += result.seconds;
  data_seconds_ += result.data_seconds;
  ++state_.step;
  state_.tokens += config_.train.global_batch_size * config_.data.sequence_len;
  state_.loss = result.loss;
  result.loss_z = state_.losses.add(result.loss);
  result.grad_norm_z = state_.grad_norms.add(result.grad_norm);
  state_.skipped_in_row = result.is_skipped ? state_.skipped_in_row + 1 : 0;
  if (result.is_skipped) ++state_.skipped_steps;
}

void Trainer::stop_when_sick(const StepResult& result) {
  if (!result.is_skipped) return;
  const auto number = [](double value) {  // a NaN has no sign
    return std::isnan(value) ? std::string("nan") : absl::StrFormat("%g", value);
  };
  const std::string what =
      absl::StrFormat("loss %s, gradient norm %s at step %d", number(result.loss),
                      number(result.grad_norm), state_.step);
  if (state_.skipped_in_row <= config_.train.max_skipped) {
    if (console_) console_->line("warning: " + what + ": the update was skipped");
    return;
  }
  saver_->finish(false);
  const std::string& last = saver_->last_checkpoint();
  const int64_t in_row = state_.skipped_in_row;
  throw Error(
      ExitCode::diverged,
      absl::StrFormat("%s; %d step%s in a row could not be used (train.max_skipped is %d); lower "
                      "optimizer.learning_rate, and go on from %s",
                      what, in_row, in_row == 1 ? "" : "s", config_.train.max_skipped,
                      last.empty() ? "the start" : last));
}

void Trainer::report(const StepResult& result) {
  if (!console_) return;
  const double tokens =
      static_cast<double>(config_.train.global_batch_size * config_.data.sequence_len);
  StepMetrics m;
  m.step = state_.step;
  m.max_steps = config_.train.max_steps;
  m.time_seconds = unix_seconds();
  m.loss = result.loss;
  m.loss_z = result.loss_z;
  m.grad_norm = result.grad_norm;
  m.grad_norm_z = result.grad_norm_z;
  m.learning_rate = result.learning_rate;
  m.tokens = state_.tokens;
  m.step_ms = result.seconds * 1e3;
  m.tokens_per_second = tokens / result.seconds;
  m.memory_bytes = session_->used_bytes();
  m.memory_limit_bytes = session_->limit().bytes;
  m.data_ms = result.data_seconds * 1e3;
  m.save_ms = saver_->take_wait_seconds() * 1e3;
  m.eta_seconds = eta_seconds();
  m.skipped_steps = state_.skipped_steps;
  routers_.update();
  m.routers = &routers_;
  console_->step(m);
  if (metrics_) metrics_->step(m);
  if (metrics_ && !metrics_->error().empty()) console_->warn("metrics", metrics_->error());
  if (steps_here_ == 1) {  // what the device did with the ops of a step is known now
    for (const std::string& note : session_->backend().notes()) console_->line("note: " + note);
  }
  const double share = data_seconds_ / train_seconds_;
  if (steps_here_ >= 10 && share > 0.05 && console_->may_warn("data")) {
    console_->warn("data",
                   absl::StrFormat("waiting for data takes %.0f %% of the time", share * 100));
  }
}

void Trainer::evaluate_when_due() {
  const int64_t every = config_.train.eval_steps;
  if (!data_->has_validation() || every == 0) return;
  if (state_.step % every != 0 && !is_last_step()) return;
  state_.validation_loss = evaluate();
  if (!console_) return;
  const double loss = *state_.validation_loss;
  console_->line(absl::StrFormat("step %d | validation loss %.4f | perplexity %.2f", state_.step,
                                 loss, std::exp(loss)));
  if (metrics_) metrics_->evaluation(state_.step, loss);
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
  const SignalRequest request = agree();
  const int64_t every = config_.checkpoint.save_steps;
  const bool stops = request == SignalRequest::save_and_stop;
  if (every > 0 && state_.step % every == 0) save_is_due_ = true;
  // Weights that give no finite loss are not worth the room of good ones.
  const bool is_worth_it = save_is_due_ && state_.skipped_in_row == 0;
  if (is_worth_it || is_last_step() || request != SignalRequest::none) {
    save_is_due_ = false;
    saver_->begin(state_);
  }
  if (is_last_step() || stops) saver_->finish(true);
  return stops && !is_last_step();
}

// The one exchange of every step, which carries all that ranks decide together.
SignalRequest Trainer::agree() {
  Communicator& world = session_->world();
  const StepVote mine{signals_.take(), saver_->stage()};
  world.all_gather(&mine, votes_.data(), sizeof(mine));
  SignalRequest request = SignalRequest::none;
  for (size_t rank = 0; rank < votes_.size(); ++rank) {
    stages_[rank] = votes_[rank].stage;
    request = std::max(request, votes_[rank].request);
  }
  saver_->advance(stages_);
  return request;
}

void Trainer::show_summary() const {
  if (!console_) return;
  const auto number = [](const std::optional<double>& value) {
    return value ? absl::StrFormat("%.4f", *value) : std::string("not measured");
  };
  std::vector<std::pair<std::string, std::string>> rows = {
      {"train loss", number(state_.loss)},
      {"validation loss", number(state_.validation_loss)},
      {"tokens", format_count(state_.tokens)},
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
                                                       format_bytes(session_->peak_used_bytes())));
  if (state_.skipped_steps > 0) {
    rows.emplace_back("steps skipped", format_count(state_.skipped_steps));
  }
  rows.emplace_back("checkpoint", saver_->last_checkpoint());
  console_->line(steps_here_ > 0 ? "done" : "this run is done already: nothing was left to train");
  console_->table(rows);
  console_->line(absl::StrFormat(
      "next: look into it with  build/caravan ckpt show %s\n"
      "      train on with      build/caravan train %s/config.yaml train.max_steps=%d\n"
      "      take it out with   build/caravan export %s --output HF_DIR",
      saver_->last_checkpoint(), config_.output_dir,
      2 * std::max(state_.step, config_.train.max_steps), config_.output_dir));
}

}  // namespace caravan
