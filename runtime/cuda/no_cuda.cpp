// The CUDA backend of a build without CUDA.
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr char kProblem[] =
    "this build has no CUDA backend: configure with -DCARAVAN_CUDA=ON where the CUDA toolkit is";

}  // namespace

CudaStatus examine_cuda(bool) {
  CudaStatus status;
  status.problem = kProblem;
  return status;
}

CudaMemory cuda_memory(int) { throw config_error(kProblem); }

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions&) { throw config_error(kProblem); }

int64_t cuda_workspace_bytes(const Op&, std::span<const TensorSpec>, std::span<const TensorSpec>) {
  throw config_error(kProblem);
}

}  // namespace caravan
