#include "runtime/cuda/check.h"

#include <cuda_runtime.h>

#include "runtime/error.h"

namespace caravan::cuda {

void fail(const std::string& what, const std::string& reason) {
  throw internal_error("[cuda] " + what + ": " + reason);
}

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  fail(what, std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")");
}

void check_that(bool ok, const char* what) {
  if (!ok) throw internal_error(std::string("[cuda] ") + what);
}

}  // namespace caravan::cuda
