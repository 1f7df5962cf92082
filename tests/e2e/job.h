// A training run in the background, whose processes a test finds, signals and kills.
#pragma once

#include <sys/types.h>

#include <functional>
#include <future>
#include <string>
#include <vector>

#include "tests/e2e/caravan_process.h"

namespace caravan {

class Job {
 public:
  // Trains into `run` of the workbench, which outlives this object; see Workbench::train.
  Job(const Workbench& bench, const std::string& run, const std::string& overrides, int num_ranks);
  ~Job();  // kills what is left of it
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // Waits for the condition. False when the job ends before, or after a minute.
  bool wait_until(const std::function<bool()>& condition) const;
  bool is_over() const;  // what was started has ended; ranks of a killed mpirun may still live
  // Waits for the end; after two minutes the job is killed, which is a test failure.
  ProcessResult result();

  std::vector<pid_t> ranks() const;     // those that live, zombies aside
  std::vector<pid_t> launcher() const;  // mpirun, if it lives
  // Waits until no process of it lives, but not for longer than so many seconds.
  bool is_gone_within(double seconds) const;

 private:
  std::vector<pid_t> all() const;
  std::vector<pid_t> all_of(const std::string& program) const;
  void kill_all() const;

  std::string argument_;  // of the command line of each of its processes, and of no others
  std::future<ProcessResult> result_;
};

}  // namespace caravan
