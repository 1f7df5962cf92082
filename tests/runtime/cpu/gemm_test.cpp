// Products of every kernel that this CPU runs, on shapes at and beyond every edge of the blocking.
#include "runtime/cpu/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "runtime/rng.h"

namespace caravan::cpu {
namespace {

std::vector<const GemmKernel*> kernels() {
  std::vector<const GemmKernel*> all = {&plain_gemm_kernel()};
  if (has_avx512()) all.push_back(&avx512_gemm_kernel());
  return all;
}

std::vector<float> random_numbers(int64_t count, uint64_t seed) {
  const RandomStream random(seed, RandomPurpose::test, 0);
  std::vector<float> numbers(static_cast<size_t>(count));
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<float>(random.bits(i) % 2001) * 1e-3f - 1.0f;
  }
  return numbers;
}

// What lies between rows and behind the last one must not change.
constexpr int64_t kGap = 3;
constexpr float kMark = 77.0f;

enum class Addend { none, other, c };

struct Case {
  int64_t m, n, k;
  bool transpose_a = false;
  bool transpose_b = false;
  Addend addend = Addend::none;
};

class Product {
 public:
  explicit Product(const Case& p)
      : case_(p),
        a_(random_numbers((p.m + kGap) * (p.k + kGap), 1)),
        b_(random_numbers((p.k + kGap) * (p.n + kGap), 2)),
        addend_(random_numbers(p.m * (p.n + kGap), 3)),
        c_(static_cast<size_t>(p.m * (p.n + kGap)), kMark) {
    if (p.addend != Addend::c) return;
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) c_[at(i, j)] = addend_[at(i, j)];
    }
  }

  Gemm gemm(const GemmKernel& kernel) {
    const Case& p = case_;
    const float* addends[] = {nullptr, addend_.data(), c_.data()};
    return {.m = p.m,
            .n = p.n,
            .k = p.k,
            .a = {a_.data(), (p.transpose_a ? p.m : p.k) + kGap, p.transpose_a},
            .b = {b_.data(), (p.transpose_b ? p.k : p.n) + kGap, p.transpose_b},
            .addend = addends[static_cast<int>(p.addend)],
            .ld_addend = p.n + kGap,
            .c = c_.data(),
            .ldc = p.n + kGap,
            .kernel = &kernel};
  }

  void expect_right() const {
    for (int64_t i = 0; i < case_.m; ++i) {
      for (int64_t j = 0; j < case_.n; ++j) {
        const double wanted = expected(i, j);
        ASSERT_NEAR(c_[at(i, j)], wanted, 1e-6 * std::sqrt(double(case_.k) + 1) * 4)
            << "(" << i << "," << j << ") of " << case_.m << " x " << case_.n << " x " << case_.k;
      }
      for (int64_t j = case_.n; j < case_.n + kGap; ++j) ASSERT_EQ(c_[at(i, j)], kMark);
    }
  }
  const std::vector<float>& result() const { return c_; }

 private:
  size_t at(int64_t i, int64_t j) const { return static_cast<size_t>(i * (case_.n + kGap) + j); }
  double expected(int64_t i, int64_t j) const {
    const Case& p = case_;
    double sum = p.addend == Addend::none ? 0.0 : addend_[at(i, j)];
    for (int64_t k = 0; k < p.k; ++k) {
      const int64_t in_a = p.transpose_a ? k * (p.m + kGap) + i : i * (p.k + kGap) + k;
      const int64_t in_b = p.transpose_b ? j * (p.k + kGap) + k : k * (p.n + kGap) + j;
      sum += double{a_[static_cast<size_t>(in_a)]} * b_[static_cast<size_t>(in_b)];
    }
    return sum;
  }

  Case case_;
  std::vector<float> a_, b_, addend_, c_;
};

void check_product(const Case& p) {
  for (const GemmKernel* kernel : kernels()) {
    SCOPED_TRACE(kernel->name);
    std::vector<float> one_thread;
    for (const int num_threads : {1, 3}) {
      Product product(p);
      std::vector<float> scratch(static_cast<size_t>(gemm_scratch_floats(p.n, p.k, num_threads)),
                                 NAN);
      gemm(product.gemm(*kernel), scratch.data(), CpuThreads(num_threads));
      product.expect_right();
      if (num_threads == 1) one_thread = product.result();
      EXPECT_EQ(one_thread, product.result()) << "with " << num_threads << " threads";
    }
  }
}

TEST(Gemm, EveryTransposeAndAddend) {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const Addend addend : {Addend::none, Addend::other, Addend::c}) {
        check_product({37, 41, 53, transpose_a, transpose_b, addend});
        check_product({3, 5, 2, transpose_a, transpose_b, addend});
      }
    }
  }
}

// One row and column less, as many as, and more than a tile of any kernel has.
TEST(Gemm, EdgesOfTiles) {
  for (const int64_t m : {1, 5, 6, 7, 13, 14, 15, 29}) {
    for (const int64_t n : {1, 8, 15, 16, 17, 31, 32, 33}) check_product({m, n, 9, false, true});
    check_product({m, 20, 9, true, false});
  }
}

TEST(Gemm, EdgesOfBlocks) {
  for (const int64_t k : {kMaxGemmDepth - 1, kMaxGemmDepth, kMaxGemmDepth + 1, 3 * kMaxGemmDepth}) {
    check_product({30, 20, k, false, true, Addend::other});
    check_product({30, 20, k, true, false});
  }
  for (const int64_t n : {1023, 1024, 1025, 2100}) check_product({17, n, 400, false, false});
}

TEST(Gemm, NothingToDo) {
  check_product({0, 5, 7});
  check_product({5, 0, 7});
  check_product({5, 6, 0});
  check_product({5, 6, 0, false, false, Addend::other});
  check_product({5, 6, 0, false, false, Addend::c});
}

// A part of what was packed: some of its rows, its columns from a whole panel on.
TEST(Gemm, PartsOfAPackedMatrix) {
  constexpr int64_t kDepth = 450, kColumns = 75, kRow = 11, kColumn = kMaxGemmColumns;
  const std::vector<float> b = random_numbers(kDepth * kColumns, 2);
  for (const GemmKernel* kernel : kernels()) {
    SCOPED_TRACE(kernel->name);
    std::vector<float> panels(static_cast<size_t>(packed_floats(kColumns, kDepth)));
    std::vector<float> panel(kPanelFloats);
    const PackedMatrix packed =
        pack({b.data(), kColumns}, kColumns, kDepth, panels.data(), *kernel);
    const Case size{19, kColumns - kColumn, kDepth - kRow};
    const std::vector<float> a = random_numbers(size.m * size.k, 1);
    Gemm product{.m = size.m,
                 .n = size.n,
                 .k = size.k,
                 .a = {a.data(), size.k},
                 .b = {b.data() + kRow * kColumns + kColumn, kColumns},
                 .kernel = kernel};
    std::vector<float> plain(static_cast<size_t>(size.m * size.n)), parts = plain;
    product.ldc = size.n;
    product.c = plain.data();
    std::vector<float> scratch(static_cast<size_t>(gemm_scratch_floats(size.n, size.k, 1)));
    gemm(product, scratch.data(), CpuThreads(1));
    product.c = parts.data();
    product.b = {};
    gemm_packed(product, part_of(packed, kRow, kColumn, *kernel), panel.data());
    EXPECT_EQ(plain, parts);
  }
}

}  // namespace
}  // namespace caravan::cpu
