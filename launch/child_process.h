// A command that is run as a child and watched: signals are passed on to it, and how it ended is
// told as a shell would. For a process that does nothing else: one thread, no signal handlers (the
// signals are blocked here and waited for), no MPI.
//
// The child stays in this process group, so that Ctrl-C on a terminal reaches both. Such a signal
// comes from the kernel and is not passed on: the child has had it already.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace caravan {

class ChildProcess {
 public:
  // Blocks USR1, USR2, TERM, INT and CHLD in this thread; the destructor restores them. Processes
  // that the command leaves behind become children of this one.
  ChildProcess();
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Starts `command` (looked up in PATH) with this environment and the signal mask from before the
  // constructor, and waits for its end. Returns its exit code, 128 + n after death by signal n.
  // A config error when it cannot be started.
  int run(const std::vector<std::string>& command);

  // Waits until the processes that the command left behind are gone, as ranks are some seconds
  // after their mpirun was killed; those that outlive `patience` are killed.
  void clear_leftovers(std::chrono::seconds patience);

  // Looks every tenth of a second, and notices signals meanwhile. Whether it became ready in time.
  bool wait_until(std::chrono::duration<double> limit, const std::function<bool()>& is_ready);

  // The last of USR1, TERM and INT that arrived: whoever sent it wants the command to end.
  std::optional<int> stop_signal() const { return stop_signal_; }

 private:
  void receive(const siginfo_t& signal);
  void reap();
  std::vector<pid_t> leftovers();

  sigset_t watched_{}, original_mask_{};
  std::vector<pid_t> others_;  // children from before, such as tee in `... > >(tee log)`
  pid_t child_ = 0;            // 0: none runs
  int status_ = 0;             // of the last child, as wait(2) gives it
  std::optional<int> stop_signal_;
};

}  // namespace caravan
