// Matrix products of cuBLASLt. One object per device; not for several threads at a time.
#pragma once

#include <cublasLt.h>

namespace caravan::cuda {

class CublasLt {
 public:
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

 private:
  cublasLtHandle_t handle_ = nullptr;
};

}  // namespace caravan::cuda
