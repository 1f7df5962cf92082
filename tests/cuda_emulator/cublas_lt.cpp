// cuBLASLt's products, emulated: the calls that runtime/cuda/cublas_lt.cpp makes, in plain loops.
//
// As strict as the library: what it would refuse (types, leading dimensions, alignments, an
// algorithm of another product, too small a workspace) is refused here. An algorithm needs all of
// the workspace it was promised and fills it with NaN, so memory that is used twice shows.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <vector>

#include "runtime/cuda/libraries.h"
#include "tests/cuda_emulator/streams.h"

namespace {

struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  int32_t transposes[2];
};
struct Layout {
  cudaDataType_t type;
  uint64_t rows;
  uint64_t columns;
  int64_t stride;
};
struct Preference {
  uint64_t workspace_bytes;
  uint32_t reduction_schemes;
  std::array<uint32_t, 4> alignments;
};
// What the bytes of an algorithm say.
struct Algorithm {
  uint64_t product;  // for which it was proposed
  uint32_t workspace_bytes;
  std::array<uint16_t, 4> alignments;
  uint32_t number;
};
static_assert(sizeof(Description) <= sizeof(cublasLtMatmulDescOpaque_t));
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

Description& of(cublasLtMatmulDesc_t d) { return *reinterpret_cast<Description*>(d); }
Layout& of(cublasLtMatrixLayout_t l) { return *reinterpret_cast<Layout*>(l); }
Preference& of(cublasLtMatmulPreference_t p) { return *reinterpret_cast<Preference*>(p); }

size_t element_bytes(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

// A product as the library sees it: d (m,n) = op(a) (m,k) op(b) (k,n), column-major.
struct Shape {
  Layout a;
  Layout b;
  Layout d;
  bool transpose_a;
  bool transpose_b;
  uint64_t m() const { return d.rows; }
  uint64_t n() const { return d.columns; }
  uint64_t k() const { return transpose_a ? a.rows : a.columns; }
};

bool types_fit(const Description& description, const Shape& s, const Layout& c) {
  if (description.scale != CUDA_R_32F || s.a.type != s.b.type || c.type != s.d.type) return false;
  const bool f32 = s.a.type == CUDA_R_32F && s.d.type == CUDA_R_32F;
  const bool bf16 = s.a.type == CUDA_R_16BF && (s.d.type == CUDA_R_16BF || s.d.type == CUDA_R_32F);
  if (description.compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
      description.compute == CUBLAS_COMPUTE_32F)
    return f32 || bf16;
  return false;
}

bool is_whole(const Layout& l) {
  return l.rows > 0 && l.columns > 0 && l.stride >= static_cast<int64_t>(l.rows);
}

bool shapes_fit(const Shape& s, const Layout& c) {
  const uint64_t m = s.transpose_a ? s.a.columns : s.a.rows;
  const uint64_t n = s.transpose_b ? s.b.rows : s.b.columns;
  const uint64_t k = s.transpose_b ? s.b.columns : s.b.rows;
  return is_whole(s.a) && is_whole(s.b) && is_whole(s.d) && is_whole(c) && m == s.m() &&
         n == s.n() && k == s.k() && c.rows == s.d.rows && c.columns == s.d.columns;
}

uint64_t fingerprint(const Description& description, const Shape& s) {
  uint64_t hash = 14695981039346656037u;
  for (const uint64_t value :
       {static_cast<uint64_t>(description.compute), uint64_t{s.transpose_a},
        uint64_t{s.transpose_b}, static_cast<uint64_t>(s.a.type), static_cast<uint64_t>(s.d.type),
        s.m(), s.n(), s.k(), static_cast<uint64_t>(s.a.stride), static_cast<uint64_t>(s.b.stride),
        static_cast<uint64_t>(s.d.stride)}) {
    hash = (hash ^ value) * 1099511628211u;
  }
  return hash;
}

Shape shape_of(cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
               cublasLtMatrixLayout_t d) {
  return {of(a), of(b), of(d), of(description).transposes[0] == CUBLAS_OP_T,
          of(description).transposes[1] == CUBLAS_OP_T};
}

float load(const void* data, cudaDataType_t type, size_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[i];
  return std::bit_cast<float>(uint32_t{static_cast<const uint16_t*>(data)[i]} << 16);
}

void store(void* data, cudaDataType_t type, size_t i, float value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[i] = value;
    return;
  }
  const auto bits = std::bit_cast<uint32_t>(value);
  const bool is_nan = value != value;
  static_cast<uint16_t*>(data)[i] =
      static_cast<uint16_t>(is_nan ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// (outer, k) with k next to each other.
std::vector<float> packed(const void* data, const Layout& l, bool k_is_rows) {
  const size_t outer = k_is_rows ? l.columns : l.rows, depth = k_is_rows ? l.rows : l.columns;
  const auto stride = static_cast<size_t>(l.stride);
  std::vector<float> values(outer * depth);
  for (size_t i = 0; i < outer; ++i) {
    for (size_t k = 0; k < depth; ++k) {
      values[i * depth + k] = load(data, l.type, k_is_rows ? i * stride + k : k * stride + i);
    }
  }
  return values;
}

float dot(const float* a, const float* b, size_t count) {
  constexpr size_t kParts = 8;
  std::array<float, kParts> sums{};
  size_t k = 0;
  for (; k + kParts <= count; k += kParts) {
    for (size_t i = 0; i < kParts; ++i) sums[i] += a[k + i] * b[k + i];
  }
  for (; k < count; ++k) sums[0] += a[k] * b[k];
  float sum = 0;
  for (const float part : sums) sum += part;
  return sum;
}

struct Factors {
  const void* a;
  const void* b;
  const void* c;
  void* d;
  float alpha;
  float beta;
};

void multiply(const Shape& s, const Factors& f) {
  const std::vector<float> a = packed(f.a, s.a, s.transpose_a);
  const std::vector<float> b = packed(f.b, s.b, !s.transpose_b);
  for (size_t j = 0; j < s.n(); ++j) {
    for (size_t i = 0; i < s.m(); ++i) {
      const size_t at = j * static_cast<size_t>(s.d.stride) + i;
      float value = f.alpha * dot(&a[i * s.k()], &b[j * s.k()], s.k());
      if (f.beta != 0) value += f.beta * load(f.c, s.d.type, at);
      store(f.d, s.d.type, at, value);
    }
  }
}

bool is_aligned(const void* address, uint32_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = static_cast<cublasLtHandle_t>(::operator new(1));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  ::operator delete(static_cast<void*>(handle));
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasLtGetStatusName(cublasStatus_t) { return "an error of emulated cuBLASLt"; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *made = new cublasLtMatmulDescOpaque_t{};
  of(*made) = {compute, scale, {CUBLAS_OP_N, CUBLAS_OP_N}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete description;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  const bool is_a = attribute == CUBLASLT_MATMUL_DESC_TRANSA;
  if ((!is_a && attribute != CUBLASLT_MATMUL_DESC_TRANSB) || bytes != sizeof(int32_t))
    return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&of(description).transposes[is_a ? 0 : 1], value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
  *made = new cublasLtMatrixLayoutOpaque_t{};
  of(*made) = {type, rows, columns, stride};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete layout;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = new cublasLtMatmulPreferenceOpaque_t{};
  of(*made) = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete preference;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
  Preference& preference = of(handle);
  const auto set = [&](auto& member) {
    if (bytes != sizeof(member)) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(&member, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
  };
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(preference.workspace_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(preference.reduction_schemes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(preference.alignments[0]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(preference.alignments[1]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(preference.alignments[2]);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(preference.alignments[3]);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

// Three proposals; the first cannot run, as may be.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t handle, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* returned) {
  const Shape s = shape_of(description, a, b, d);
  *returned = 0;
  if (requested < 1 || !shapes_fit(s, of(c))) return CUBLAS_STATUS_INVALID_VALUE;
  if (!types_fit(of(description), s, of(c))) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Preference& preference = of(handle);
  Algorithm algorithm{.product = fingerprint(of(description), s),
                      .workspace_bytes = static_cast<uint32_t>(preference.workspace_bytes),
                      .alignments = {},
                      .number = 0};
  std::ranges::copy(preference.alignments, algorithm.alignments.begin());
  for (; *returned < std::min(requested, 3); ++*returned) {
    algorithm.number = static_cast<uint32_t>(*returned);
    results[*returned] = {};
    results[*returned].state = *returned == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
    results[*returned].workspaceSize = preference.workspace_bytes;
    std::memcpy(&results[*returned].algo, &algorithm, sizeof(algorithm));
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const Shape s = shape_of(description, a_layout, b_layout, d_layout);
  Algorithm algorithm{};
  std::memcpy(&algorithm, algo, sizeof(algorithm));
  if (!shapes_fit(s, of(c_layout)) || algorithm.product != fingerprint(of(description), s) ||
      algorithm.number == 0 || workspace_bytes < algorithm.workspace_bytes ||
      !is_aligned(workspace, 256)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (c == d && of(c_layout).stride != s.d.stride) return CUBLAS_STATUS_INVALID_VALUE;
  const std::array<const void*, 4> addresses = {a, b, c, d};
  const std::array<cudaDataType_t, 4> types = {s.a.type, s.b.type, s.d.type, s.d.type};
  for (size_t i = 0; i < addresses.size(); ++i) {
    const auto least = static_cast<uint32_t>(element_bytes(types[i]));
    if (!is_aligned(addresses[i], std::max<uint32_t>(least, algorithm.alignments[i])))
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Factors factors{
      a, b, c, d, *static_cast<const float*>(alpha), *static_cast<const float*>(beta)};
  caravan::emulator::put(stream, [=] {
    std::memset(workspace, 0xff, algorithm.workspace_bytes);
    multiply(s, factors);
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"

namespace caravan::cuda {

std::string open_cublas_lt() { return ""; }

}  // namespace caravan::cuda
