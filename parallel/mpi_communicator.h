// A Communicator over MPI, for host memory. Start MPI with MpiSession (mpi_session.h) first.
//
// Sums are not MPI_Allreduce: ranks exchange pieces, each adds its own piece in rank order
// (rank_sum.h) and hands it out again. That moves as few bytes as any algorithm can, rounds bf16
// once, fixes the bits whatever MPI would choose. See bandwidth below.
//
// Waiting. MPI makes progress only inside its calls, and a blocked call spins: measured with
// 2 ranks on 2 cores, each with a compute thread and a communication thread bound to one core,
// MPI_Wait for a late peer takes 0.50 of the compute thread's time; with the setting
// mpi_yield_when_idle nothing that can be measured. Nobody has to know that setting: a collective
// first meets its peers by polling (yield at first, then sleep 50 us at a time; the same figure
// as with the setting, on any kernel) and moves data when all are there. The price is some 30 us
// for the collective that had to wait. mpirun binds each of up to 2 ranks to *one core*, with all
// its threads; start ranks of several threads with --bind-to none or --map-by slot:PE=n.
//
// Bandwidth on that machine (2 ranks, f32, `all_reduce`): 10 MB at 7 GB/s, 40 MB at 5 GB/s, where
// memcpy does 12-14 and 7, and MPI_Allreduce 4-6 and 2. Where the container forbids
// process_vm_readv MPI copies twice and has 1 GB/s.
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
