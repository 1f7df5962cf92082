// NVIDIA devices: what is there, and the backend for one of them. A build without CUDA has these
// functions too (no_cuda.cpp): it finds no device and says that it was built without.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/backend.h"

namespace caravan {

struct CudaDevice {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  int num_multiprocessors = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
};

struct CudaStatus {
  bool is_built_in = false;
  std::string driver;   // "13.0"; empty: there is none
  std::string runtime;  // of the toolkit that this build has
  std::string cudnn;
  std::string nccl;
  std::vector<CudaDevice> devices;
  std::string problem;  // why no device can be used, and the fix; empty when one can
};
// Touches no device's memory beyond what the driver itself takes. Never throws.
CudaStatus examine_cuda();

struct CudaOptions {
  int device = 0;
  bool deterministic = false;  // only algorithms that give the same bits in every run
  bool graphs = true;          // false: record() does not record
};
// A config error with the fix when there is no such device.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

// Backend::workspace_bytes of every device, for plans where there is none.
int64_t cuda_workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                             std::span<const TensorSpec> outputs);

}  // namespace caravan
