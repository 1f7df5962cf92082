// A Communicator over MPI, for host memory. Start MPI with MpiSession (mpi_session.h) first.
//
// Sums are not MPI_Allreduce: ranks exchange pieces, each adds its own piece in rank order
// (rank_sum.h) and hands it out again. That moves as few bytes as any algorithm can, rounds bf16
// once, and fixes the bits whatever MPI would choose. Its first version did 7 GB/s on a quiet
// machine (2 ranks, 2 cores, f32, 10 MB), where MPI_Allreduce did 6 and memcpy 14.
//
// Waiting. MPI makes progress only inside its calls, and a blocked call spins. With a compute and a
// communication thread on one core, a wait for a late rank took 0.50 of the compute thread's time.
// Here every wait polls: it spins for 100 us, then sleeps between polls, which took next to nothing
// from it; no MPI setting is needed. (mpi_yield_when_idle spares the compute thread as
// well, but who yields gets the core back late.) On a machine loaded sixfold, beside busy compute
// threads, a sum of 4 MB took 4-14 ms this way, about 50 ms with yield, 67-88 ms by MPI_Allreduce.
//
// mpirun binds each of one or two ranks to *one core*, with all its threads: start ranks of several
// threads with --bind-to none or --map-by slot:PE=n.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/communicator.h"

namespace caravan {

struct MpiCommunicatorOptions {
  int64_t max_message_bytes = int64_t{1} << 30;  // longer ones are cut: MPI counts with an int
  int64_t piece_bytes = 0;                       // of a sum, per rank; 0: see mpi_workspace_bytes
};

// All processes of the job. Every communicator (also those from split) has its own MPI context, so
// two threads may use two of them at once. A failure is Error with ExitCode::peer_lost.
std::unique_ptr<Communicator> make_mpi_communicator(const MpiCommunicatorOptions& options = {});

// Memory that a communicator of `num_ranks` holds from its first sum on: 4 MiB up to 64 ranks.
int64_t mpi_workspace_bytes(int num_ranks);

// Throws Error with ExitCode::peer_lost unless `status` is MPI_SUCCESS; `call` names it.
void check_mpi(int status, const char* call);

}  // namespace caravan
