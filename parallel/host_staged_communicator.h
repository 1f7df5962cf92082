// A Communicator for device memory over one for host memory (MPI): what is sent is copied to the
// host, what has arrived is copied back. For ranks that share a device, which NCCL does not allow,
// and for builds without NCCL.
//
// Calls begin after what is on the backend's communication stream, wait for it, and return when
// their result is on its way back on that stream. Memory: twice kHostStagedBytes of the host.
#pragma once

#include <memory>

#include "runtime/backend.h"
#include "runtime/communicator.h"

namespace caravan {

inline constexpr int64_t kHostStagedBytes = int64_t{8} << 20;  // that travel at a time, all ranks'

// `backend` outlives it. `bytes` that travel at a time: at least 64 for each rank.
std::unique_ptr<Communicator> make_host_staged_communicator(std::unique_ptr<Communicator> inner,
                                                            Backend& backend,
                                                            int64_t bytes = kHostStagedBytes);

}  // namespace caravan
