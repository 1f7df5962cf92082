// Matrix products of cuBLASLt on row-major matrices. One object per device; not for several threads
// at a time.
//
// How a product is computed is chosen when its shape first runs, and kept. Unless the queue allows
// to tune, that is the library's first proposal; otherwise its first few are timed, so that a first
// run takes longer and waits for the stream. Products sum in f32; f32 factors are multiplied in
// true f32.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/types.h"

namespace caravan::cuda {

struct Queue;  // runtime/cuda/kernels.h

struct Factor {
  const void* data;
  int64_t stride;  // elements from a stored row to the next
  bool transposed = false;
};

// d (M,N) = a (M,K) b (K,N) + addend (M,N); a transposed factor is stored (K,M) or (N,K).
struct Product {
  int64_t m;
  int64_t n;
  int64_t k;
  DType type;         // of the factors: f32 or bf16
  DType output_type;  // of d and of the addend: like the factors, or f32
  Factor a;
  Factor b;
  const void* addend = nullptr;  // strided like d; d itself: adds in place
  void* d;
  int64_t stride;  // of d
};

// Of the size that product_workspace_bytes says, aligned to 64 bytes.
struct ProductWorkspace {
  void* data;
  int64_t bytes;
};
int64_t product_workspace_bytes(int64_t m, int64_t n);

class CublasLt {
 public:
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // Puts the product on the queue's stream. While that is captured, only for products that ran
  // before: an internal error otherwise.
  void multiply(const Product& product, const ProductWorkspace& workspace, const Queue& queue);

 private:
  struct Plans;
  std::unique_ptr<Plans> plans_;
};

}  // namespace caravan::cuda
