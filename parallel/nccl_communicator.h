// A Communicator over NCCL, for device memory. A build without NCCL has these functions too
// (no_nccl.cpp): it says so.
//
// Calls put work on one stream and return; only all_reduce_max and barrier, whose results are on
// the host, go by way of the control communicator and wait. NCCL fixes the order of a sum by the
// ranks and the size, not by rank as on the host: the same bits from run to run, other bits than
// the CPU.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/backend.h"
#include "runtime/communicator.h"

namespace caravan {

// "2.28.9"; "" in a build or on a machine without NCCL.
std::string nccl_version();

struct NcclOptions {
  void* stream = nullptr;     // cudaStream_t, of the device that is current in the calling thread
  double limit_seconds = 60;  // for the ranks to find each other, and to begin a call
  // Device memory that calls mostly use: registered, where NCCL can then spare a copy.
  void* memory = nullptr;
  int64_t memory_bytes = 0;
};

// Collective over `control`, a communicator of the same ranks on host memory: it tells the others
// where rank 0 is. Groups made by split() have control communicators split from it. Errors of NCCL,
// and ranks that do not come in time, are Error with ExitCode::peer_lost.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> control,
                                                     const NcclOptions& options);

}  // namespace caravan
