// The end of a job because of a failure that one rank has seen.
#pragma once

#include <string>

#include "launch/failure.h"
#include "parallel/mpi_session.h"

namespace caravan {

// Claims error.json, says `line` when this rank is the first that failed, and ends all ranks with
// failure.exit_code: through MPI, and by itself soon after should MPI not end. Any thread; joins
// nothing, frees nothing.
[[noreturn]] void end_job(MpiSession& mpi, const std::string& output_dir, const Failure& failure,
                          const std::string& line);

}  // namespace caravan
