// The functions of cuDNN that cudnn_attention.cpp and the headers of cudnn-frontend call, and those
// of NVRTC that a kernel of the headers would call, which is not used: they stay closed.
#include <cudnn.h>

#include "runtime/cuda/libraries.h"
#include "runtime/cuda/on_demand.h"

#define CARAVAN_CUDNN(F)                                                                         \
  F(cudnnBackendCreateDescriptor)                                                                \
  F(cudnnBackendDestroyDescriptor)                                                               \
  F(cudnnBackendExecute)                                                                         \
  F(cudnnBackendFinalize) F(cudnnBackendGetAttribute) F(cudnnBackendSetAttribute) F(cudnnCreate) \
      F(cudnnDestroy) F(cudnnGetErrorString) F(cudnnGetLastErrorString) F(cudnnGetStream)        \
          F(cudnnGetVersion) F(cudnnSetStream)
#define CARAVAN_NVRTC(F) \
  F(nvrtcCompileProgram) \
  F(nvrtcCreateProgram)  \
  F(nvrtcDestroyProgram) \
  F(nvrtcGetCUBIN) F(nvrtcGetCUBINSize) F(nvrtcGetProgramLog) F(nvrtcGetProgramLogSize)

CARAVAN_CUDNN(CARAVAN_ON_DEMAND)
CARAVAN_NVRTC(CARAVAN_ON_DEMAND)

namespace caravan::cuda {

std::string open_cudnn() {
  static constexpr OnDemandFunction kFunctions[] = {CARAVAN_CUDNN(CARAVAN_ON_DEMAND_ENTRY)};
  return open_library("libcudnn.so.9", kFunctions);
}

}  // namespace caravan::cuda
