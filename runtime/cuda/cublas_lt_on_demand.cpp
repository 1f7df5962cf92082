// The functions of cuBLASLt that cublas_lt.cpp calls.
#include <cublasLt.h>

#include "runtime/cuda/libraries.h"
#include "runtime/cuda/on_demand.h"

#define CARAVAN_CUBLAS_LT(F)                                                        \
  F(cublasLtCreate)                                                                 \
  F(cublasLtDestroy)                                                                \
  F(cublasLtGetStatusName)                                                          \
  F(cublasLtMatmul) F(cublasLtMatmulAlgoGetHeuristic) F(cublasLtMatmulDescCreate)   \
      F(cublasLtMatmulDescDestroy) F(cublasLtMatmulDescSetAttribute)                \
          F(cublasLtMatmulPreferenceCreate) F(cublasLtMatmulPreferenceDestroy)      \
              F(cublasLtMatmulPreferenceSetAttribute) F(cublasLtMatrixLayoutCreate) \
                  F(cublasLtMatrixLayoutDestroy)

CARAVAN_CUBLAS_LT(CARAVAN_ON_DEMAND)

namespace caravan::cuda {

std::string open_cublas_lt() {
  static constexpr OnDemandFunction kFunctions[] = {CARAVAN_CUBLAS_LT(CARAVAN_ON_DEMAND_ENTRY)};
  return open_library("libcublasLt.so.13", kFunctions);
}

}  // namespace caravan::cuda
