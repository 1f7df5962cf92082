// The tile kernels for AVX-512, with its 32 registers. Compiled for CPUs that the rest of the
// program does not ask for.
#include "runtime/cpu/gemm_kernel_tiles.h"

namespace caravan::cpu {

const GemmKernel& avx512_gemm_kernel() {
  static constexpr GemmKernel kKernel = make_gemm_kernel<16, 14>("14 x 32, AVX-512");
  return kKernel;
}

}  // namespace caravan::cpu
