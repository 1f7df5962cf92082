// What this GPU can do at most, which the other figures are set against: a bf16 product of
// 8192 x 8192 x 8192 by cuBLASLt, and copying 2 GiB on the device.
//   bench_gpu_ceilings
// Prints one JSON line: the device, TFLOP/s and GB/s (copied bytes count twice, as read and as
// written), medians of many. Random factors: a product of zeros draws less power and is faster.
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/handles.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using cuda::check_cuda;
using cuda::check_that;

constexpr int64_t kSize = 8192;
constexpr int64_t kCopyBytes = int64_t{2} << 30;
constexpr size_t kWorkspaceBytes = size_t{64} << 20;
constexpr int kWarmups = 5;
constexpr int kTries = 30;

void check_lt(cublasStatus_t status, const char* what) {
  check_that(status == CUBLAS_STATUS_SUCCESS, what);
}

// Events that know the time, unlike cuda::Event.
class Timer {
 public:
  Timer() {
    check_cuda(cudaEventCreate(&begin_), "new event");
    check_cuda(cudaEventCreate(&end_), "new event");
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }

  // Of one call of `action` on the stream.
  double seconds(cudaStream_t stream, const std::function<void()>& action) const {
    check_cuda(cudaEventRecord(begin_, stream), "event");
    action();
    check_cuda(cudaEventRecord(end_, stream), "event");
    check_cuda(cudaEventSynchronize(end_), "wait for an event");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin_, end_), "time between events");
    return 1e-3 * milliseconds;
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

double median_seconds(cudaStream_t stream, const std::function<void()>& action) {
  const Timer timer;
  std::vector<double> seconds;
  for (int i = 0; i < kWarmups + kTries; ++i) {
    const double one = timer.seconds(stream, action);
    if (i >= kWarmups) seconds.push_back(one);
  }
  std::ranges::nth_element(seconds, seconds.begin() + kTries / 2);
  return seconds[kTries / 2];
}

// bf16 in [-1, 1).
std::vector<uint16_t> random_matrix(uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint16_t> values(kSize * kSize);
  for (uint16_t& value : values) {
    const float x = static_cast<float>(static_cast<int32_t>(random())) * 0x1p-31f;
    value = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
  }
  return values;
}

// Column-major, the first factor transposed: how weights and activations mostly lie.
class Product {
 public:
  explicit Product(Backend& backend)
      : a_(matrix(backend, 1)),
        b_(matrix(backend, 2)),
        c_(backend.reserve(kSize * kSize * 2)),
        workspace_(backend.reserve(kWorkspaceBytes)) {
    check_lt(cublasLtCreate(&handle_), "cublasLtCreate");
    check_lt(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
    const cublasOperation_t transpose = CUBLAS_OP_T;
    check_lt(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                            sizeof(transpose)),
             "transpose");
    check_lt(cublasLtMatrixLayoutCreate(&layout_, CUDA_R_16BF, kSize, kSize, kSize), "layout");
    choose();
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;
  ~Product() {
    cublasLtMatrixLayoutDestroy(layout_);
    cublasLtMatmulDescDestroy(product_);
    cublasLtDestroy(handle_);
  }

  void run(cudaStream_t stream) const {
    const float one = 1, zero = 0;
    check_lt(cublasLtMatmul(handle_, product_, &one, a_->data(), layout_, b_->data(), layout_,
                            &zero, c_->data(), layout_, c_->data(), layout_, &algorithm_.algo,
                            workspace_->data(), kWorkspaceBytes, stream),
             "cublasLtMatmul");
  }

 private:
  static std::unique_ptr<DeviceMemory> matrix(Backend& backend, uint32_t seed) {
    const std::vector<uint16_t> values = random_matrix(seed);
    auto memory = backend.reserve(kSize * kSize * 2);
    backend.copy_in(memory->data(), values.data(), memory->bytes());
    return memory;
  }

  void choose() {
    cublasLtMatmulPreference_t preference = nullptr;
    check_lt(cublasLtMatmulPreferenceCreate(&preference), "preference");
    check_lt(
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &kWorkspaceBytes, sizeof(kWorkspaceBytes)),
        "workspace");
    int found = 0;
    check_lt(cublasLtMatmulAlgoGetHeuristic(handle_, product_, layout_, layout_, layout_, layout_,
                                            preference, 1, &algorithm_, &found),
             "cublasLtMatmulAlgoGetHeuristic");
    cublasLtMatmulPreferenceDestroy(preference);
    check_that(found == 1, "no algorithm for a bf16 product");
  }

  std::unique_ptr<DeviceMemory> a_, b_, c_, workspace_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t layout_ = nullptr;
  cublasLtMatmulHeuristicResult_t algorithm_{};
};

double copy_seconds(Backend& backend, cudaStream_t stream) {
  const auto from = backend.reserve(kCopyBytes);
  const auto to = backend.reserve(kCopyBytes);
  return median_seconds(stream, [&] {
    check_cuda(cudaMemcpyAsync(to->data(), from->data(), static_cast<size_t>(kCopyBytes),
                               cudaMemcpyDeviceToDevice, stream),
               "copy on the device");
  });
}

nlohmann::json measure() {
  const auto backend = make_cuda_backend({});
  const cuda::Stream stream;
  backend->synchronize();
  const Product product(*backend);
  backend->synchronize();
  const double product_seconds = median_seconds(stream.get(), [&] { product.run(stream.get()); });
  const CudaStatus status = examine_cuda();
  return {{"device", status.devices.front().name},
          {"driver", status.driver},
          {"device_bytes", status.devices.front().total_bytes},
          {"bf16_tflops", 2e-12 * kSize * kSize * kSize / product_seconds},
          {"copy_gb_s", 2e-9 * kCopyBytes / copy_seconds(*backend, stream.get())}};
}

}  // namespace
}  // namespace caravan

int main() {
  try {
    std::cout << caravan::measure() << std::endl;
    return 0;
  } catch (const caravan::Error& error) {
    std::cerr << "bench_gpu_ceilings: " << error.what() << std::endl;
    return static_cast<int>(error.code());
  }
}
