// The end of a run on a rank that threw an exception: error.json, one line per job, and all ranks
// are ended. What a watchdog finds ends in launch/end_job.h instead.
#pragma once

#include <string>

#include "parallel/mpi_session.h"
#include "runtime/progress.h"

namespace caravan {

struct RunPlace {
  std::string output_dir;
  MpiSession& mpi;
  const Progress& progress;
};

// Inside a catch block, by the thread that trains, before anything of the run is destroyed: the
// communication thread may be inside a collective that never ends. With peers it ends the process;
// alone it throws the exception on, for the command line to say.
[[noreturn]] void fail_run(const RunPlace& place);

}  // namespace caravan
