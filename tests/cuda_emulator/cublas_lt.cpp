// cuBLASLt's products, emulated: what runtime/cuda/cublas_lt.cpp calls.
#include <cublasLt.h>

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }
const char* cublasLtGetStatusName(cublasStatus_t) { return "an error of emulated cuBLASLt"; }

}  // extern "C"
