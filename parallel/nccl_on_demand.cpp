#include "parallel/nccl_on_demand.h"

#include <nccl.h>

#include "runtime/cuda/on_demand.h"

#define CARAVAN_NCCL(F)                                                                            \
  F(ncclAllGather)                                                                                 \
  F(ncclAllReduce)                                                                                 \
  F(ncclBroadcast) F(ncclCommAbort) F(ncclCommDeregister) F(ncclCommDestroy) F(ncclCommFinalize)   \
      F(ncclCommGetAsyncError) F(ncclCommInitRankConfig) F(ncclCommRegister) F(ncclGetErrorString) \
          F(ncclGetLastError) F(ncclGetUniqueId) F(ncclGetVersion) F(ncclGroupEnd)                 \
              F(ncclGroupStart) F(ncclRecv) F(ncclReduceScatter) F(ncclSend)

CARAVAN_NCCL(CARAVAN_ON_DEMAND)

namespace caravan {

std::string open_nccl() {
  static constexpr cuda::OnDemandFunction kFunctions[] = {CARAVAN_NCCL(CARAVAN_ON_DEMAND_ENTRY)};
  return cuda::open_library("libnccl.so.2", kFunctions);
}

}  // namespace caravan
