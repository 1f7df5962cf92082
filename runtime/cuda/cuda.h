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
  std::string id;  // of this device alone, on any machine
  int major = 0;   // compute capability
  int minor = 0;
  int num_multiprocessors = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = -1;  // -1: was not asked
};

struct CudaStatus {
  bool is_built_in = false;
  std::string driver;   // "13.0"; empty: there is none
  std::string runtime;  // of the toolkit that this build has
  std::string cudnn;
  std::vector<CudaDevice> devices;
  std::string problem;  // why no device can be used, and the fix; empty when one can
};
// Never throws. `with_memory` also asks what is free: that starts the driver on each device, which
// takes some hundred MiB of it until the process ends.
CudaStatus examine_cuda(bool with_memory = false);

struct CudaMemory {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // what this process and others hold is not
};
CudaMemory cuda_memory(int device);

struct CudaOptions {
  int device = 0;
  bool deterministic = false;  // only algorithms that give the same bits in every run
  // Products are timed when their shape first runs, and the fastest way kept. Not where ranks
  // compute the same value each for itself (replicas of tp): they must choose the same way.
  bool tunes = true;
  bool graphs = true;   // false: record() does not record
  bool overlap = true;  // false: communication is put on the compute stream
};
// A config error with the fix when there is no such device.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

// Backend::workspace_bytes of every device, for plans where there is none.
int64_t cuda_workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                             std::span<const TensorSpec> outputs);

}  // namespace caravan
