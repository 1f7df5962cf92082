// The tile kernels for the instruction set of the whole program (by default AVX2: 16 registers),
// and the choice between them.
#include "runtime/cpu/gemm_kernel_tiles.h"

namespace caravan::cpu {

const GemmKernel& plain_gemm_kernel() {
  static constexpr GemmKernel kKernel = make_gemm_kernel<8, 6>("6 x 16");
  return kKernel;
}

bool has_avx512() { return __builtin_cpu_supports("x86-64-v4") != 0; }

const GemmKernel& best_gemm_kernel() {
  static const GemmKernel& kernel = has_avx512() ? avx512_gemm_kernel() : plain_gemm_kernel();
  return kernel;
}

}  // namespace caravan::cpu
