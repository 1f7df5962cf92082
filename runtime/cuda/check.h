// Every call of a CUDA library goes through one of these: what fails throws an internal error that
// names the call and the library's reason. The executor adds the op.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace caravan::cuda {

[[noreturn]] void fail(const std::string& what, const std::string& reason);

// `what`: "copy to the device".
void check_cuda(cudaError_t status, const char* what);
// For what only a bug can cause, in files that nvcc reads.
void check_that(bool ok, const char* what);

}  // namespace caravan::cuda
