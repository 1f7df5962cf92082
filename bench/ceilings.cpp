// What this machine can do at most: multiply-adds of fp32 in registers, and copying memory. All
// other figures are set against these.
//   bench_ceilings [threads]
// Prints one JSON line: GF/s and GB/s, of one thread and of all. Copied bytes count twice, as read
// and as written. Each number is the best of several tries: a ceiling is not a median.
#include <immintrin.h>
#include <omp.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>

namespace {

constexpr int kTries = 12;
constexpr int64_t kCopyBytes = int64_t{512} << 20;  // far beyond any cache
// Independent sums: enough to cover the latency of two multiply-adds a cycle.
constexpr int kAccumulators = 12;
constexpr int64_t kRounds = 4'000'000;

template <typename Action>
double best_seconds(const Action& action) {
  double best = 1e9;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    action();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  return best;
}

// Assembly, so that no compiler merges the chains or drops what nobody reads.
__attribute__((target("avx512f"))) void multiply_add_512() {
  __m512 sum[kAccumulators] = {};
  const __m512 factor = _mm512_set1_ps(1e-3f);
  for (int64_t round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) {
      asm volatile("vfmadd231ps %1, %1, %0" : "+v"(sum[i]) : "v"(factor));
    }
  }
}

__attribute__((target("avx2,fma"))) void multiply_add_256() {
  __m256 sum[kAccumulators] = {};
  const __m256 factor = _mm256_set1_ps(1e-3f);
  for (int64_t round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) {
      asm volatile("vfmadd231ps %1, %1, %0" : "+x"(sum[i]) : "x"(factor));
    }
  }
}

struct Vectors {
  const char* name;
  void (*multiply_add)();
  int lanes;
};

// The wider registers are not faster on every processor, so the better of the two counts.
Vectors best_vectors() {
  const Vectors avx2{"AVX2", multiply_add_256, 8};
  const Vectors avx512{"AVX-512", multiply_add_512, 16};
  if (!__builtin_cpu_supports("avx512f")) return avx2;
  const double seconds_256 = best_seconds(multiply_add_256);
  const double seconds_512 = best_seconds(multiply_add_512);
  return seconds_512 < 2 * seconds_256 ? avx512 : avx2;
}

double gigaflops(const Vectors& vectors, int num_threads) {
  const double seconds = best_seconds([&] {
#pragma omp parallel num_threads(num_threads)
    vectors.multiply_add();
  });
  return 2e-9 * vectors.lanes * kAccumulators * kRounds * num_threads / seconds;
}

// Past the caches: a store that does not read the line first.
__attribute__((target("avx"))) void copy_streaming(float* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 8) _mm256_stream_ps(to + i, _mm256_load_ps(from + i));
  _mm_sfence();
}

void copy_plainly(float* to, const float* from, int64_t count) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

class CopyBench {
 public:
  CopyBench() : from_(allocate(1)), to_(allocate(2)) {}
  ~CopyBench() {
    std::free(from_);
    std::free(to_);
  }
  CopyBench(const CopyBench&) = delete;
  CopyBench& operator=(const CopyBench&) = delete;

  double gigabytes_per_second(int num_threads) const {
    const double seconds = std::min(best_seconds([&] { copy(num_threads, copy_streaming); }),
                                    best_seconds([&] { copy(num_threads, copy_plainly); }));
    return 2e-9 * static_cast<double>(kCopyBytes) / seconds;
  }

 private:
  // In large pages where the system has them, as the arena.
  static float* allocate(int value) {
    void* memory = std::aligned_alloc(size_t{2} << 20, kCopyBytes);
    if (memory == nullptr) throw std::bad_alloc();
    madvise(memory, kCopyBytes, MADV_HUGEPAGE);
    std::memset(memory, value, kCopyBytes);
    return static_cast<float*>(memory);
  }

  template <typename Copy>
  void copy(int num_threads, Copy copy_part) const {
    // Parts of a cache line: 16 floats.
    constexpr int64_t kLines = kCopyBytes / 64;
#pragma omp parallel num_threads(num_threads)
    {
      const int64_t thread = omp_get_thread_num();
      const int64_t begin = kLines * thread / num_threads * 16;
      const int64_t end = kLines * (thread + 1) / num_threads * 16;
      copy_part(to_ + begin, from_ + begin, end - begin);
    }
  }

  float* from_;
  float* to_;
};

}  // namespace

int main(int argc, char** argv) {
  const int num_threads = argc > 1 ? std::atoi(argv[1]) : omp_get_max_threads();
  if (num_threads < 1) {
    std::cerr << "usage: bench_ceilings [threads]" << std::endl;
    return 2;
  }
  const Vectors vectors = best_vectors();
  const CopyBench copies;
  const nlohmann::json result = {{"threads", num_threads},
                                 {"instructions", vectors.name},
                                 {"gflops_1", gigaflops(vectors, 1)},
                                 {"gflops", gigaflops(vectors, num_threads)},
                                 {"copy_gb_s_1", copies.gigabytes_per_second(1)},
                                 {"copy_gb_s", copies.gigabytes_per_second(num_threads)}};
  std::cout << result << std::endl;
}
