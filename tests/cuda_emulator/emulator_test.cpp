// The emulator is a judge, so it is judged first: it computes what a device would, and mistakes
// that a device may forgive show.
#include <gtest/gtest.h>

#include "tests/cuda_emulator/device.h"

#include <array>
#include <numeric>
#include <vector>

#include "runtime/cuda/handles.h"
#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/ptx.cuh"
#include "runtime/cuda/reduce.cuh"
#include "runtime/error.h"

namespace caravan::cuda {
namespace {

template <typename... Parameters, typename... Arguments>
void run_now(const Grid& grid, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const Stream stream;
  launch(grid, stream.get(), kernel, arguments...);
  stream.synchronize("test");
}

__global__ void number_threads(int* out) {
  const int block = static_cast<int>(blockIdx.x + gridDim.x * blockIdx.y);
  out[block * 64 + static_cast<int>(threadIdx.x + blockDim.x * threadIdx.y)] += block + 1;
}

TEST(Emulator, RunsEveryThreadOfEveryBlockOnce) {
  std::vector<int> out(6 * 64, 0);
  run_now({dim3(3, 2), dim3(16, 4)}, number_threads, out.data());
  for (int i = 0; i < 6 * 64; ++i) EXPECT_EQ(out[static_cast<size_t>(i)], i / 64 + 1) << i;
}

__global__ void sum_block(const float* in, float* out) {
  out[threadIdx.x] = reduce_block(in[threadIdx.x], Sum{});
}

TEST(Emulator, SumsOverABlock) {
  std::vector<float> in(160), out(160);
  std::iota(in.begin(), in.end(), 1.0f);
  run_now({1, 160}, sum_block, in.data(), out.data());
  EXPECT_EQ(out, std::vector<float>(160, 160 * 161 / 2));
}

__global__ void reverse_without_barrier(int* data) {
  __shared__ int copy[64];
  copy[threadIdx.x] = data[threadIdx.x];
  data[threadIdx.x] = copy[63 - threadIdx.x];
}

// Threads run in one order or in the other, from launch to launch.
TEST(Emulator, ShowsAMissingBarrier) {
  for (int launch = 0; launch < 2; ++launch) {
    std::vector<int> data(64);
    std::iota(data.begin(), data.end(), 100 * launch);
    const std::vector<int> reversed(data.rbegin(), data.rend());
    run_now({1, 64}, reverse_without_barrier, data.data());
    EXPECT_NE(data, reversed);
  }
}

__global__ void wait_for_nobody(int* data) {
  if (threadIdx.x == 0) *data = __shfl_sync(kAllLanes, 1, 0);
}

TEST(Emulator, RefusesBarriersThatNobodyElseReaches) {
  int data = 0;
  EXPECT_THROW(run_now({1, 64}, wait_for_nobody, &data), std::runtime_error);
}

__global__ void read_copy(const float* from, float* out, bool waits) {
  auto* shared = shared_memory<float>();
  copy_async_16(shared, from);
  copy_async_16(shared + 4, from, false);
  commit_copies();
  if (waits) wait_for_copies<0>();
  for (int i = 0; i < 8; ++i) out[i] = shared[i];
}

TEST(Emulator, CopiesArriveWhenTheyAreWaitedFor) {
  const std::array<float, 4> from = {1, 2, 3, 4};
  std::array<float, 8> out{};
  run_now({1, 1, 32}, read_copy, from.data(), out.data(), true);
  EXPECT_EQ(out, (std::array<float, 8>{1, 2, 3, 4, 0, 0, 0, 0}));
  run_now({1, 1, 32}, read_copy, from.data(), out.data(), false);
  EXPECT_TRUE(std::isnan(out[0]));
}

// One 16 x 8 product of matrices that load_matrices fetched.
__global__ void multiply_tiles(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t left[4], right[4];
  // a (16,16): its four quarters in the order of the fragment; b (16,8) is stored by rows.
  load_matrices(left, a + (lane % 16) * 16 + lane / 16 * 8);
  load_matrices_transposed(right, b + (lane % 16) * 8);
  float sums[4] = {};
  multiply_add(sums, left, right[0], right[1]);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    c[row * 8 + column] = sums[i];
  }
}

TEST(Emulator, MultipliesMatrices) {
  alignas(16) std::array<__nv_bfloat16, 256> a{};
  alignas(16) std::array<__nv_bfloat16, 128> b{};
  std::array<float, 128> c{};
  const auto value = [](size_t i, int seed) { return static_cast<float>((i * 7 + seed) % 11) - 5; };
  for (size_t i = 0; i < a.size(); ++i) a[i] = __float2bfloat16(value(i, 1));
  for (size_t i = 0; i < b.size(); ++i) b[i] = __float2bfloat16(value(i, 4));
  run_now({1, 32}, multiply_tiles, a.data(), b.data(), c.data());
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      float expected = 0;
      for (size_t k = 0; k < 16; ++k) {
        expected += value(row * 16 + k, 1) * value(k * 8 + column, 4);
      }
      EXPECT_EQ(c[row * 8 + column], expected) << row << ", " << column;
    }
  }
}

__global__ void set(int* to, int value) { *to = value; }
__global__ void copy(const int* from, int* to) { *to = *from; }

TEST(Emulator, ShowsAMissingWaitBetweenStreams) {
  const Stream writes, reads;
  Event written;
  int value = 0, seen = -1;
  launch({1, 1}, writes.get(), set, &value, 7);
  launch({1, 1}, reads.get(), copy, &value, &seen);
  reads.synchronize("test");
  EXPECT_EQ(seen, 0);
  written.record(writes.get());
  written.hold(reads.get());
  launch({1, 1}, reads.get(), copy, &value, &seen);
  reads.synchronize("test");
  EXPECT_EQ(seen, 7);
}

TEST(Emulator, RefusesAGraphWhoseStreamsAreNotJoined) {
  for (const bool joins : {false, true}) {
    const Stream origin, side;
    Event forked, joined;
    int value = 0;
    cudaStreamBeginCapture(origin.get(), cudaStreamCaptureModeThreadLocal);
    forked.record(origin.get());
    forked.hold(side.get());
    launch({1, 1}, side.get(), set, &value, 7);
    joined.record(side.get());
    if (joins) joined.hold(origin.get());
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(origin.get(), &graph);
    EXPECT_EQ(status, joins ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    if (graph != nullptr) cudaGraphDestroy(graph);
    EXPECT_EQ(value, 0);
  }
}

}  // namespace
}  // namespace caravan::cuda
