#include "launch/supervise_command.h"

#include "launch/model_source.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <system_error>

#include "checkpoint/directory.h"
#include "launch/child_process.h"
#include "launch/effective_time.h"
#include "launch/run_folder.h"
#include "launch/run_lock.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr int kSameFailures = 3;
constexpr int kFirstSignalCode = 128;  // a shell's and mpirun's code after death by signal n: 128+n
constexpr auto kLeftoverPatience = 10s;  // ranks notice within some seconds that mpirun is gone
constexpr auto kLockPatience = 60s;      // also on other nodes

struct SuperviseRequest {
  int max_restarts = 10;
  double delay_seconds = 0;
  std::vector<std::string> command;
};

template <typename... Args>
void say(const absl::FormatSpec<Args...>& format, const Args&... args) {
  absl::FPrintF(stderr, "supervise: %s\n", absl::StrFormat(format, args...));
}

// What the run folder tells of the run; of a command without one, nothing.
class RunView {
 public:
  explicit RunView(std::span<const std::string> command)
      : config_(training_config(command, reason_)) {
    if (config_ && config_->log.report_to.empty()) reason_ = "log.report_to has no jsonl";
    if (has_metrics()) start_bytes_ = attempt_bytes_ = metrics_bytes(metrics_path(*config_));
  }

  void begin_attempt() {
    if (has_metrics()) attempt_bytes_ = metrics_bytes(metrics_path(*config_));
  }

  // Where the attempt ended; absent when nothing is known of it.
  std::optional<RepeatedFailure::Place> place() const {
    if (!has_metrics()) return std::nullopt;
    return RepeatedFailure::Place{
        .last_step = read_step_times(metrics_path(*config_), attempt_bytes_).last_step,
        .committed_step = find_latest(checkpoints_folder(*config_)).step};
  }

  std::string next_start() const {
    if (!config_) return "starts again";
    const std::string path = find_latest(checkpoints_folder(*config_)).path;
    return path.empty() ? "starts from the beginning: no checkpoint yet" : "goes on from " + path;
  }

  std::string effective_time(double wall_seconds) const {
    if (!has_metrics()) return "effective time is not known: " + reason_;
    const int64_t committed = find_latest(checkpoints_folder(*config_)).step;
    return "effective time " +
           describe_effective_time(read_step_times(metrics_path(*config_), start_bytes_, committed),
                                   wall_seconds);
  }

  // A rank that still dies, here or on another node, holds the folder's lock: the next start would
  // take it for another run.
  bool is_free() const {
    if (!config_) return true;
    try {
      return RunLock(config_->output_dir).is_held();
    } catch (const std::system_error&) {
      return true;  // no folder yet; what else is wrong the command itself will say
    }
  }

 private:
  bool has_metrics() const { return reason_.empty(); }

  std::string reason_;  // why there are no metrics; empty: there are. Before config_, which sets it
  std::optional<Config> config_;
  int64_t start_bytes_ = 0;    // of metrics.jsonl, when all began
  int64_t attempt_bytes_ = 0;  // and when the command was started last
};

class Supervisor {
 public:
  explicit Supervisor(const SuperviseRequest& request) : request_(request), run_(request.command) {}

  // Returns the exit code of the command's last run.
  int run() {
    const auto start = Clock::now();
    int code = run_once();
    while (prepare_restart(code)) code = run_once();
    say("%d restart%s | %s", restarts_, restarts_ == 1 ? "" : "s",
        run_.effective_time(std::chrono::duration<double>(Clock::now() - start).count()));
    return code;
  }

 private:
  int run_once() {
    run_.begin_attempt();
    const int code = child_.run(request_.command);
    // USR1 before the command was ready to take it: as good as stopped, with nothing to save.
    if (child_.stop_signal() == SIGUSR1 && code == kFirstSignalCode + SIGUSR1) {
      return static_cast<int>(ExitCode::interrupted);
    }
    return code;
  }

  // Whether the command is to be started again, and may be now. `code` becomes that of a stop when
  // the request to stop came while nothing ran.
  bool prepare_restart(int& code) {
    if (!is_worth_a_restart(code)) return false;
    if (const std::string reason = reason_to_give_up(); !reason.empty()) {
      say("%s; not started again: %s", describe_exit_code(code), reason);
      return false;
    }
    child_.clear_leftovers(kLeftoverPatience);
    const auto is_stopped = [this] { return child_.stop_signal().has_value(); };
    child_.wait_until(kLockPatience, [&] { return is_stopped() || run_.is_free(); });
    child_.wait_until(std::chrono::duration<double>(request_.delay_seconds), is_stopped);
    if (is_stopped()) {
      const int signal = *child_.stop_signal();
      code =
          signal == SIGUSR1 ? static_cast<int>(ExitCode::interrupted) : kFirstSignalCode + signal;
      say("asked to stop between two starts; %s when started again", run_.next_start());
      return false;
    }
    if (!run_.is_free()) {
      say("%s; not started again: after %d s a process still holds the run folder",
          describe_exit_code(code), kLockPatience.count());
      return false;
    }
    ++restarts_;
    say("restart %d of %d | %s | %s", restarts_, request_.max_restarts, describe_exit_code(code),
        run_.next_start());
    return true;
  }

  std::string reason_to_give_up() {
    if (child_.stop_signal()) return "it was asked to stop";
    const auto place = run_.place();
    if (place && failure_.is_third(*place)) {
      return absl::StrFormat("%d times in a row it died %s without a new checkpoint", kSameFailures,
                             place->last_step ? absl::StrFormat("after step %d", *place->last_step)
                                              : "before its first step");
    }
    if (restarts_ < request_.max_restarts) return "";
    return absl::StrFormat("%d restarts are used up; --max-restarts N allows more", restarts_);
  }

  const SuperviseRequest& request_;
  RunView run_;
  ChildProcess child_;
  RepeatedFailure failure_;
  int restarts_ = 0;
};

// Under mpirun or srun each rank would have a supervisor that restarts its rank alone.
void check_not_a_rank() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* size = std::getenv(variable);
    if (size == nullptr || std::atoi(size) <= 1) continue;
    throw config_error(
        "supervise was started by mpirun or srun, as one of several processes; it is to start "
        "them: caravan supervise -- mpirun -n N caravan train ...");
  }
}

// After a rank's death mpirun asks the others to end and waits a second, twice, before it kills
// them, in which they say which rank died. Under supervise nobody watches, and the exit code says
// that one was killed: what counts is the next start.
void hurry_mpirun() { setenv("OMPI_MCA_odls_base_sigkill_timeout", "0", /*overwrite=*/0); }

}  // namespace

bool is_worth_a_restart(int exit_code) {
  return exit_code == static_cast<int>(ExitCode::internal) ||
         exit_code == static_cast<int>(ExitCode::peer_lost) || exit_code >= kFirstSignalCode;
}

std::string describe_exit_code(int exit_code) {
  if (exit_code > kFirstSignalCode && exit_code < kFirstSignalCode + NSIG) {
    return absl::StrFormat("exit code %d: killed by signal %d", exit_code,
                           exit_code - kFirstSignalCode);
  }
  if (exit_code == static_cast<int>(ExitCode::peer_lost)) {
    return absl::StrFormat("exit code %d: another process was lost", exit_code);
  }
  return absl::StrFormat("exit code %d", exit_code);
}

std::optional<Config> training_config(std::span<const std::string> command, std::string& reason) {
  auto word = std::ranges::find(command, "train");
  if (word == command.end()) {
    reason = "the command has no `train CONFIG`";
    return std::nullopt;
  }
  std::vector<std::string> plain;
  for (++word; word != command.end(); ++word) {
    const bool takes_value = *word == "--dump-graph" || *word == "--fault";
    if (takes_value && word + 1 != command.end()) {
      ++word;
    } else if (!word->starts_with("-")) {
      plain.push_back(*word);
    }
  }
  try {
    if (plain.empty()) throw config_error("no CONFIG follows `train`");
    return load_config(plain.front(), std::span(plain).subspan(1), read_model);
  } catch (const Error& error) {  // the command will say so too, and end
    reason = error.what();
    return std::nullopt;
  }
}

bool RepeatedFailure::is_third(const Place& place) {
  times_ = place_ == place ? times_ + 1 : 1;
  place_ = place;
  return times_ >= kSameFailures;
}

void add_supervise_command(CLI::App& app) {
  auto request = std::make_shared<SuperviseRequest>();
  CLI::App* command = app.add_subcommand(
      "supervise", "start a training command again after each crash, from the newest checkpoint");
  command->add_option("--max-restarts", request->max_restarts, "then give up")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--delay", request->delay_seconds, "seconds to wait before each restart")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("command", request->command,
                   "after --: what to run, such as mpirun -n 4 caravan train CONFIG")
      ->required();
  command->callback([request] {
    check_not_a_rank();
    hurry_mpirun();
    throw CLI::RuntimeError(Supervisor(*request).run());
  });
}

}  // namespace caravan
