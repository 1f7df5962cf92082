#include "launch/fail_run.h"

#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>

#include "launch/end_job.h"

namespace caravan {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A lost peer is what a rank sees of another's failure, which comes first; the launcher may end
// this process meanwhile. And where all ranks fail alike, as in a loss that is NaN, rank 0 speaks.
milliseconds patience(ExitCode code, int rank) {
  if (code == ExitCode::peer_lost) return milliseconds(2000);
  return milliseconds(rank == 0 ? 0 : 200);
}

// Waits, but not for long, until error.json exists.
void let_others_speak(const std::string& output_dir, milliseconds how_long) {
  const auto until = steady_clock::now() + how_long;
  while (!has_failure(output_dir) && steady_clock::now() < until) {
    std::this_thread::sleep_for(milliseconds(10));
  }
}

Failure describe(const RunPlace& place, const ErrorText& error) {
  const Position at = place.progress.read();
  return {.rank = place.mpi.world().rank(),
          .host = place.mpi.host_name(),
          .step = at.step,
          .phase = std::string(name(at.phase)),
          .message = error.message,
          .exit_code = error.code};
}

}  // namespace

void fail_run(const RunPlace& place) {
  const ErrorText error = describe_error(std::current_exception());
  if (error.code == ExitCode::interrupted) throw;  // no failure
  let_others_speak(place.output_dir, patience(error.code, place.mpi.world().rank()));
  const Failure failure = describe(place, error);
  if (place.mpi.world().size() == 1) {
    claim_failure(place.output_dir, failure);
    throw;
  }
  std::fflush(stdout);  // what was said before
  end_job(place.mpi, place.output_dir, failure,
          failure.rank == 0 ? failure.message
                            : absl::StrFormat("rank %d: %s", failure.rank, failure.message));
}

}  // namespace caravan
