#include "launch/train_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "launch/end_job.h"
#include "launch/fail_run.h"
#include "launch/fault.h"
#include "launch/judge.h"
#include "launch/model_source.h"
#include "launch/plan_command.h"
#include "launch/signals.h"
#include "launch/start_limit.h"
#include "launch/trainer.h"
#include "launch/watchdog.h"

namespace caravan {
namespace {

constexpr std::chrono::milliseconds kLastWords{300};  // less than mpirun leaves
constexpr std::chrono::seconds kLauncherTakes{5};     // at most, to end a job

// Null when there are no others, or nobody wants one. Collective.
std::unique_ptr<Watchdog> make_watchdog(const Config& config, MpiSession& mpi, SignalWatch& signals,
                                        Session& session) {
  if (mpi.world().size() == 1 || config.runtime.watchdog_seconds == 0) return nullptr;
  WatchdogSetup setup{.heartbeat = make_mpi_heartbeat(),
                      .places = gather_places(session.world(), mpi.host_name()),
                      .progress = session.progress(),
                      .programs = session.plan().programs};
  setup.limit_seconds = static_cast<double>(config.runtime.watchdog_seconds);
  setup.is_ending = [&signals] { return signals.has_term(); };
  setup.on_failure = [&mpi, folder = config.output_dir](const Failure& failure) {
    end_job(mpi, folder, failure, failure.message);
  };
  signals.set_last_words(kLastWords);
  return std::make_unique<Watchdog>(std::move(setup));
}

// All ranks that wait are late together. Rank 0 speaks, and its end ends the job; where it is the
// one that hangs, another does.
void end_late_start(std::chrono::seconds limit, const Progress& progress) {
  const char* rank = std::getenv("PMIX_RANK");
  if (rank != nullptr && std::atoi(rank) > 0) std::this_thread::sleep_for(kLauncherTakes);
  print_failure(absl::StrFormat(
      "the start takes longer than %d s (%d x runtime.watchdog_seconds): a process is stopped "
      "or cannot be reached, or its disk does not answer; a rank that waits is in phase %s",
      limit.count(), kDiskFactor, name(progress.read().phase)));
  _exit(static_cast<int>(ExitCode::peer_lost));
}

// Null for a process without peers, or when nobody wants one.
std::unique_ptr<StartLimit> make_start_limit(const RuntimeConfig& runtime,
                                             const Progress& progress) {
  const std::chrono::seconds limit(kDiskFactor * runtime.watchdog_seconds);
  if (!launched_by_mpi(std::getenv) || limit.count() == 0) return nullptr;
  return std::make_unique<StartLimit>(limit,
                                      [limit, &progress] { end_late_start(limit, progress); });
}

}  // namespace

void train(const TrainRequest& request) {
  SignalWatch signals;
  Progress progress;
  Config config;
  std::exception_ptr unreadable;  // an error that ranks tell together, when they know each other
  try {
    config = load_config(request.config_path, request.overrides, read_model);
  } catch (const Error&) {
    unreadable = std::current_exception();
  }
  std::unique_ptr<StartLimit> start_limit = make_start_limit(config.runtime, progress);
  MpiSession mpi;
  if (unreadable) std::rethrow_exception(unreadable);
  TrainerOptions options{.resume = {.allow_config_change = request.allow_config_change},
                         .progress = &progress,
                         .after_node = request.after_node};
  if (!request.dump_pass.empty() && mpi.world().rank() == 0) {
    options.observer = graph_dumper("update", request.dump_pass, std::cout);
  }
  if (!request.fault.empty()) {
    const FaultRequest fault = parse_fault(request.fault, mpi.world().size());
    if (fault.rank == mpi.world().rank()) options.after_node = make_fault(fault, progress);
  }
  std::optional<Trainer> trainer;
  std::unique_ptr<Watchdog> watchdog;
  bool is_done = false;
  try {
    trainer.emplace(config, mpi, signals, options);
    watchdog = make_watchdog(config, mpi, signals, trainer->session());
    start_limit.reset();
    is_done = trainer->run();
  } catch (...) {
    // Before all ranks agreed on the plan, the folder may be that of another job.
    if (progress.read().phase == Phase::planning) throw;
    fail_run({config.output_dir, mpi, progress});
  }
  if (watchdog) watchdog->finish();
  watchdog.reset();
  trainer.reset();
  if (!is_done) signals.ignore_term();
  mpi.finish();
  if (!is_done) throw Error(ExitCode::interrupted, "saved and stopped; start again to go on");
}

void add_train_command(CLI::App& app) {
  auto request = std::make_shared<TrainRequest>();
  CLI::App* command = app.add_subcommand(
      "train", "train, or go on where the run folder stands; alone, under mpirun or under srun");
  command->add_option("config", request->config_path, "YAML file")->required();
  command->add_option("overrides", request->overrides, "section.key=value");
  command->add_option("--dump-graph", request->dump_pass,
                      "print the update program's graph after a pass, then train");
  command->add_flag("--allow-config-change", request->allow_config_change,
                    "resume although data, seed, batch or optimizer changed");
  command->add_option(
      "--fault", request->fault,
      "KIND@STEP:RANK: to see what your cluster does when a rank fails; stop, hang, "
      "kill, error, nan or nan-gradient");
  command->callback([request] { train(*request); });
}

}  // namespace caravan
