// A build without cuDNN: attention runs on our own kernels.
#include "runtime/cuda/cudnn_attention.h"

namespace caravan::cuda {

std::unique_ptr<CudnnAttention> make_cudnn_attention(std::string& problem) {
  problem = "this build has no cuDNN";
  return nullptr;
}

std::string cudnn_version() { return ""; }

}  // namespace caravan::cuda
