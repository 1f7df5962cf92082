#include "launch/end_job.h"

#include <unistd.h>

#include <chrono>
#include <thread>

namespace caravan {
namespace {

// For the first rank's exit code to become the job's, and for the launcher to end this process.
constexpr std::chrono::seconds kFirstEnds{2};
constexpr std::chrono::seconds kAbortTakes{2};  // at most

}  // namespace

void end_job(MpiSession& mpi, const std::string& output_dir, const Failure& failure,
             const std::string& line) {
  if (claim_failure(output_dir, failure) == Claim::later) {
    std::this_thread::sleep_for(kFirstEnds);
  } else {
    print_failure(line);
  }
  const int code = static_cast<int>(failure.exit_code);
  std::thread([code] {
    std::this_thread::sleep_for(kAbortTakes);
    _exit(code);
  }).detach();
  mpi.abort(failure.exit_code);
}

}  // namespace caravan
