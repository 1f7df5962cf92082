// Ranks as threads of one process, to test what needs several ranks without MPI.
// Not for speed: every rank computes every sum.
#pragma once

#include <functional>

#include "runtime/communicator.h"

namespace caravan {

// Runs body(communicator) on `num_ranks` threads and returns when all have ended. Sums are made in
// rank order, with the same bits as over MPI. When a body throws, calls of the other ranks that
// wait or come later throw too, and run_ranks rethrows the first exception. Ranks that make
// different calls, or wait for one that has ended, get an exception that says so: nothing hangs.
void run_ranks(int num_ranks, const std::function<void(Communicator&)>& body);

}  // namespace caravan
