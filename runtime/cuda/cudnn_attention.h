// Attention by cuDNN's fused kernels. One object per device; not for several threads at a time.
#pragma once

#include <memory>
#include <string>

namespace caravan::cuda {

class CudnnAttention {
 public:
  virtual ~CudnnAttention() = default;
};

// Null where the build or the machine has no cuDNN.
std::unique_ptr<CudnnAttention> make_cudnn_attention();
std::string cudnn_version();  // "9.12.0"; empty: there is none

}  // namespace caravan::cuda
