// cuBLASLt's matrices are column-major. A row-major matrix is its own transpose there, so what is
// asked for is d^T (N,M) = b^T a^T: cuBLASLt's A is our b and its B our a, with the same strides.
#include "runtime/cuda/cublas_lt.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cfloat>
#include <map>
#include <optional>
#include <span>

#include "absl/strings/str_format.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels.h"

namespace caravan::cuda {
namespace {

// What NVIDIA recommends for Hopper. Small products need less: room for 8 partial sums of each
// element, should the depth be split.
constexpr int64_t kMaxWorkspaceBytes = 32 << 20;
constexpr int64_t kMinWorkspaceBytes = 64 << 10;
constexpr int64_t kPartialSumBytes = 8 * 4;
constexpr int64_t kWorkspaceAlignment = 256;  // demanded by cublasLtMatmul

int64_t library_workspace_bytes(int64_t m, int64_t n) {
  const int64_t bytes = kMinWorkspaceBytes + m * n * kPartialSumBytes;
  return std::min(kMaxWorkspaceBytes,
                  (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment);
}

void check_cublas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) fail(what, cublasLtGetStatusName(status));
}

// The planner's alignment at most: what is chosen must not depend on where a tensor was planned.
uint32_t alignment_of(const void* address) {
  constexpr uintptr_t kMost = 64;
  const auto bits = reinterpret_cast<uintptr_t>(address) | kMost;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

// All that a choice depends on.
struct Key {
  int64_t m, n, k, stride_a, stride_b, stride_d;
  DType type, output_type;
  bool transposed_a, transposed_b;
  std::array<uint32_t, 4> alignments;  // of cuBLASLt's A, B, C, D
  bool deterministic;
  auto operator<=>(const Key&) const = default;
};

Key key_of(const Product& p, bool deterministic) {
  const void* addend = p.addend == nullptr ? p.d : p.addend;
  return {p.m,
          p.n,
          p.k,
          p.a.stride,
          p.b.stride,
          p.stride,
          p.type,
          p.output_type,
          p.a.transposed,
          p.b.transposed,
          {alignment_of(p.b.data), alignment_of(p.a.data), alignment_of(addend), alignment_of(p.d)},
          deterministic};
}

cudaDataType_t data_type(DType type) {
  check_that(type == DType::f32 || type == DType::bf16, "products are of f32 or bf16");
  return type == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// "Pedantic" for f32: plain 32F is f32 arithmetic too, but NVIDIA_TF32_OVERRIDE and the switches of
// emulated precision can turn it into something else.
cublasComputeType_t compute_type(DType type) {
  return type == DType::f32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
}

template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
struct Deleter {
  using pointer = Handle;
  void operator()(Handle handle) const { kDestroy(handle); }
};
template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Deleter<Handle, kDestroy>>;
using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

Description describe(const Product& p) {
  cublasLtMatmulDesc_t made = nullptr;
  check_cublas(cublasLtMatmulDescCreate(&made, compute_type(p.type), CUDA_R_32F), "a product");
  Description description(made);
  const cublasOperation_t a = p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t b = p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  check_cublas(cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof(a)),
               "a product's transposes");
  check_cublas(cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof(b)),
               "a product's transposes");
  return description;
}

// Of a row-major matrix (rows, columns), as cuBLASLt sees it.
Layout layout(DType type, int64_t rows, int64_t columns, int64_t stride) {
  cublasLtMatrixLayout_t made = nullptr;
  check_cublas(
      cublasLtMatrixLayoutCreate(&made, data_type(type), static_cast<uint64_t>(columns),
                                 static_cast<uint64_t>(rows), std::max<int64_t>(stride, 1)),
      "a matrix");
  return Layout(made);
}

template <typename Value>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         Value value) {
  check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
               "preferences of a product");
}

// Where the depth may be split, partial sums are f32 in the workspace: never in the output's type.
Preference prefer(const Key& key) {
  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&made), "preferences of a product");
  Preference preference(made);
  const uint32_t schemes =
      key.deterministic ? CUBLASLT_REDUCTION_SCHEME_NONE
                        : CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  set(made, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
  set(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      static_cast<uint64_t>(library_workspace_bytes(key.m, key.n)));
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignments[0]);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignments[1]);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignments[2]);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignments[3]);
  return preference;
}

class TimedEvent {
 public:
  TimedEvent() { check_cuda(cudaEventCreate(&event_), "new event"); }
  ~TimedEvent() { cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;
  void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "event"); }
  float milliseconds_since(const TimedEvent& begin) const {
    float milliseconds = 0;
    check_cuda(cudaEventSynchronize(event_), "a timed product");
    check_cuda(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "time of a product");
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

struct Plan {
  Description description;
  Layout a;
  Layout b;
  Layout d;  // and the addend
  cublasLtMatmulAlgo_t algorithm{};
};

Plan describe_all(const Product& p) {
  Plan plan;
  plan.description = describe(p);
  plan.a =
      p.b.transposed ? layout(p.type, p.n, p.k, p.b.stride) : layout(p.type, p.k, p.n, p.b.stride);
  plan.b =
      p.a.transposed ? layout(p.type, p.k, p.m, p.a.stride) : layout(p.type, p.m, p.k, p.a.stride);
  plan.d = layout(p.output_type, p.m, p.n, p.stride);
  return plan;
}

// A product with the memory that it runs in.
struct Call {
  cublasLtHandle_t library;
  const Product& product;
  void* workspace;
  cudaStream_t stream;

  cublasStatus_t run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, float alpha) const {
    const Product& p = product;
    const float beta = p.addend == nullptr ? 0.0f : 1.0f;
    const void* addend = p.addend == nullptr ? p.d : p.addend;
    return cublasLtMatmul(library, plan.description.get(), &alpha, p.b.data, plan.a.get(), p.a.data,
                          plan.b.get(), &beta, addend, plan.d.get(), p.d, plan.d.get(), &algorithm,
                          workspace, static_cast<size_t>(library_workspace_bytes(p.m, p.n)),
                          stream);
  }
};

// Of three runs after a first one; nothing where it does not run. A product that adds in place is
// timed with the smallest factor that is not denormal: what it adds to stays as it is.
std::optional<float> time_of(const Call& call, const Plan& plan,
                             const cublasLtMatmulAlgo_t& algorithm) {
  constexpr int kRuns = 3;
  const float alpha = call.product.addend == call.product.d ? FLT_MIN : 1.0f;
  if (call.run(plan, algorithm, alpha) != CUBLAS_STATUS_SUCCESS) return {};
  TimedEvent begin, end;
  begin.record(call.stream);
  for (int i = 0; i < kRuns; ++i) {
    if (call.run(plan, algorithm, alpha) != CUBLAS_STATUS_SUCCESS) return {};
  }
  end.record(call.stream);
  return end.milliseconds_since(begin);
}

using Proposal = cublasLtMatmulHeuristicResult_t;

cublasLtMatmulAlgo_t fastest(const Call& call, const Plan& plan,
                             std::span<const Proposal> proposals) {
  cublasLtMatmulAlgo_t best = proposals.front().algo;
  std::optional<float> best_time;
  for (const Proposal& proposal : proposals) {
    const std::optional<float> time = time_of(call, plan, proposal.algo);
    if (!time || (best_time && *time >= *best_time)) continue;
    best = proposal.algo;
    best_time = time;
  }
  return best;
}

std::string text(const Product& p) {
  return absl::StrFormat("product (%d,%d) x (%d,%d), %s to %s", p.m, p.k, p.k, p.n,
                         std::string(name(p.type)), std::string(name(p.output_type)));
}

Plan make_plan(const Call& call, const Key& key, bool tunes) {
  constexpr int kProposals = 8;
  Plan plan = describe_all(call.product);
  const Preference preference = prefer(key);
  std::array<Proposal, kProposals> proposals{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      call.library, plan.description.get(), plan.a.get(), plan.b.get(), plan.d.get(), plan.d.get(),
      preference.get(), kProposals, proposals.data(), &count);
  const std::span<Proposal> all(proposals.data(), static_cast<size_t>(count));
  const auto usable = std::ranges::partition(
      all, [](const Proposal& p) { return p.state == CUBLAS_STATUS_SUCCESS; });
  const std::span<const Proposal> good(all.begin(), usable.begin());
  if (status != CUBLAS_STATUS_SUCCESS || good.empty()) {
    fail(text(call.product),
         std::string("cuBLASLt has no way to compute it: ") + cublasLtGetStatusName(status));
  }
  plan.algorithm = tunes ? fastest(call, plan, good) : good.front().algo;
  return plan;
}

// A product without depth: zeros, or the addend.
void multiply_nothing(const Product& p, cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(size_bytes(p.output_type));
  const size_t pitch = static_cast<size_t>(p.stride) * bytes;
  const size_t width = static_cast<size_t>(p.n) * bytes, height = static_cast<size_t>(p.m);
  if (p.addend == nullptr) {
    check_cuda(cudaMemset2DAsync(p.d, pitch, 0, width, height, stream), "zeroing a product");
  } else if (p.addend != p.d) {
    check_cuda(cudaMemcpy2DAsync(p.d, pitch, p.addend, pitch, width, height,
                                 cudaMemcpyDeviceToDevice, stream),
               "copy of an addend");
  }
}

bool is_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), "state of a stream");
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace

int64_t product_workspace_bytes(int64_t m, int64_t n) {
  return library_workspace_bytes(m, n) + kWorkspaceAlignment;
}

struct CublasLt::Plans {
  Library library;
  std::map<Key, Plan> of;
};

CublasLt::CublasLt() : plans_(std::make_unique<Plans>()) {
  cublasLtHandle_t library = nullptr;
  check_cublas(cublasLtCreate(&library), "start of cuBLASLt");
  plans_->library.reset(library);
}
CublasLt::~CublasLt() = default;

void CublasLt::multiply(const Product& product, const ProductWorkspace& workspace,
                        const Queue& queue) {
  if (product.m == 0 || product.n == 0) return;
  if (product.k == 0) return multiply_nothing(product, queue.stream);
  check_that(workspace.bytes >= product_workspace_bytes(product.m, product.n),
             "the workspace of a product is too small");
  const auto address = reinterpret_cast<uintptr_t>(workspace.data);
  const uintptr_t aligned =
      (address + kWorkspaceAlignment - 1) & ~uintptr_t{kWorkspaceAlignment - 1};
  const Call call{plans_->library.get(), product, reinterpret_cast<void*>(aligned), queue.stream};
  const Key key = key_of(product, queue.deterministic);
  auto found = plans_->of.find(key);
  if (found == plans_->of.end()) {
    if (is_captured(queue.stream)) {
      fail(text(product), "it must run once before it is recorded in a graph");
    }
    found = plans_->of.emplace(key, make_plan(call, key, queue.tunes)).first;
  }
  check_cublas(call.run(found->second, found->second.algorithm, 1.0f), "a product");
}

}  // namespace caravan::cuda
