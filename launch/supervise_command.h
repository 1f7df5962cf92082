// `caravan supervise -- COMMAND...`: runs a training command, starts it again after a crash, and
// tells how much of the time went into steps that count. It computes nothing and starts no MPI;
// what is restarted is the whole command, which goes on from the newest checkpoint by itself.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/config.h"

namespace CLI {
class App;
}

namespace caravan {

// Adds `supervise` to `app`; parsing runs it. Throws CLI::RuntimeError with the command's last exit
// code, so that a batch script sees what it would see without supervise.
void add_supervise_command(CLI::App& app);

// Whether the same command may do better: after 1, 6 and death by a signal (128 and more). Not
// after 75, which somebody asked for, nor after what a restart cannot mend.
bool is_worth_a_restart(int exit_code);

// "exit code 6: another process was lost", "exit code 137: killed by signal 9".
std::string describe_exit_code(int exit_code);

// The configuration of the `train CONFIG [key=value ...]` in a command, with its overrides. Absent
// when there is none in it, or when it cannot be loaded: then `reason` says why.
std::optional<Config> training_config(std::span<const std::string> command, std::string& reason);

// Notices a failure that restarts do not heal: the same last step three times in a row, without a
// new checkpoint in between.
class RepeatedFailure {
 public:
  struct Place {
    std::optional<int64_t> last_step;  // absent: it died before the first
    int64_t committed_step = -1;       // of the newest checkpoint; -1: none

    bool operator==(const Place&) const = default;
  };

  bool is_third(const Place& place);

 private:
  std::optional<Place> place_;
  int times_ = 0;
};

}  // namespace caravan
