// NCCL in a build without it.
#include "parallel/nccl_communicator.h"
#include "runtime/error.h"

namespace caravan {

std::string nccl_version() { return ""; }

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator>,
                                                     const NcclOptions&) {
  throw internal_error("this build has no NCCL");
}

}  // namespace caravan
