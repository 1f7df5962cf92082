#include "runtime/cuda/cublas_lt.h"

#include "runtime/cuda/check.h"

namespace caravan::cuda {
namespace {

void check_cublas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) fail(what, cublasLtGetStatusName(status));
}

}  // namespace

CublasLt::CublasLt() { check_cublas(cublasLtCreate(&handle_), "start of cuBLASLt"); }
CublasLt::~CublasLt() { cublasLtDestroy(handle_); }

}  // namespace caravan::cuda
