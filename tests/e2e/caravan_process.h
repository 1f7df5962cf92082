// Runs the real program in a folder of its own: files, mpirun, exit codes, what it prints.
#pragma once

#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace caravan {

struct ProcessResult {
  int exit_code = -1;
  std::string output;  // standard output and error together
  double seconds = 0;
};

// Of caravan and the other programs that tests start.
std::string program_folder();

// `command` is what a user types after "caravan"; num_ranks 0 runs it without mpirun. `prefix`
// comes before all of it, such as "timeout -s USR1 3".
ProcessResult run_caravan(const std::string& command, int num_ranks = 0,
                          const std::string& prefix = "");

// Any program of that folder.
ProcessResult run_program(const std::string& command, int num_ranks,
                          const std::string& prefix = "");

// A scratch folder that is removed with the object, tokens of a small text in `data()`, and a
// configuration of a tiny Llama.
class Workbench {
 public:
  Workbench();

  const std::string& folder() const { return folder_.path(); }
  std::string path(const std::string& name) const { return folder_ / name; }

  // What follows "caravan" to train into folder()/run.
  std::string train_command(const std::string& run, const std::string& overrides) const;
  // Trains into folder()/run with overrides ("train.max_steps=4 parallel.zero=1").
  ProcessResult train(const std::string& run, const std::string& overrides,
                      int num_ranks = 0) const;
  std::vector<double> losses(const std::string& run) const;  // of its metrics.jsonl, bit for bit

 private:
  TemporaryFolder folder_;
};

}  // namespace caravan
