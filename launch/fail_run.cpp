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

// For the rank that really failed to say so, and for the launcher to end this process.
constexpr milliseconds kFirstSpeaks{2000};

// Waits, but not for long, until error.json exists.
void wait_for_failure(const std::string& output_dir) {
  const auto until = steady_clock::now() + kFirstSpeaks;
  while (!has_failure(output_dir) && steady_clock::now() < until) {
    std::this_thread::sleep_for(milliseconds(20));
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
  // A lost peer is what other ranks see of a failure: theirs comes first.
  if (error.code == ExitCode::peer_lost) wait_for_failure(place.output_dir);
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
