// A radix sort, from the last digit to the first, made for some ten thousand tokens: its launches
// take more time than its bytes. For every digit: how often each kind is in each tile of tokens,
// where that puts the first of them, and the move, in which one warp goes through a tile in order.
#include "runtime/cuda/sort.h"

#include <algorithm>

#include "runtime/cuda/launch.cuh"
#include "runtime/cuda/reduce.cuh"
#include "runtime/cuda/vectors.cuh"

namespace caravan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kDigitBits = 9;  // two digits for any vocabulary below 262,144
constexpr int kDigits = 1 << kDigitBits;
constexpr int kTile = 512;
constexpr int kScanThreads = 1024;
constexpr int kScanItems = 8;  // of a thread and round

__device__ int digit_of(int32_t key, int shift) { return (key >> shift) & (kDigits - 1); }

__global__ void keys_kernel(const int32_t* ids, int64_t count, int64_t first, int64_t num_keys,
                            int32_t* keys, int32_t* tokens) {
  const int64_t t = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t >= count) return;
  const int64_t key = ids[t] - first;
  keys[t] = static_cast<int32_t>(key >= 0 && key < num_keys ? key : num_keys);
  tokens[t] = static_cast<int32_t>(t);
}

// counts (kDigits, tiles): integers, whose sums no order changes.
__global__ void __launch_bounds__(kThreads)
    count_kernel(const int32_t* keys, int64_t count, int shift, int32_t* counts) {
  __shared__ int of_tile[kDigits];
  const int thread = static_cast<int>(threadIdx.x);
  for (int digit = thread; digit < kDigits; digit += kThreads) of_tile[digit] = 0;
  __syncthreads();
  const int64_t begin = int64_t{blockIdx.x} * kTile;
  const int64_t end = min(count, begin + kTile);
  for (int64_t t = begin + thread; t < end; t += kThreads) {
    atomicAdd(&of_tile[digit_of(keys[t], shift)], 1);
  }
  __syncthreads();
  for (int digit = thread; digit < kDigits; digit += kThreads) {
    counts[int64_t{digit} * gridDim.x + blockIdx.x] = of_tile[digit];
  }
}

// Of the threads before this one in the block, and of all.
struct Before {
  int mine;
  int all;
};
__device__ Before sum_before(int value, int* of_warps) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  int sum = value;
  for (int by = 1; by < 32; by *= 2) {
    const int other = __shfl_up_sync(kAllLanes, sum, by);
    if (lane >= by) sum += other;
  }
  __syncthreads();  // the last call's sums have been read
  if (lane == 31) of_warps[thread / 32] = sum;
  __syncthreads();
  Before before{sum - value, 0};
  for (int warp = 0; warp < kScanThreads / 32; ++warp) {
    if (warp < thread / 32) before.mine += of_warps[warp];
    before.all += of_warps[warp];
  }
  return before;
}

// Replaces every count by the sum of all before it. One block: there are 64 thousand at most times.
__global__ void __launch_bounds__(kScanThreads) scan_kernel(int32_t* counts, int64_t count) {
  __shared__ int of_warps[kScanThreads / 32];
  int carry = 0;
  for (int64_t round = 0; round < count; round += kScanThreads * kScanItems) {
    const int64_t begin = round + int64_t{threadIdx.x} * kScanItems;
    int items[kScanItems];
    int sum = 0;
#pragma unroll
    for (int i = 0; i < kScanItems; ++i) {
      items[i] = begin + i < count ? counts[begin + i] : 0;
      sum += items[i];
    }
    const Before before = sum_before(sum, of_warps);
    int next = carry + before.mine;
#pragma unroll
    for (int i = 0; i < kScanItems; ++i) {
      if (begin + i < count) counts[begin + i] = next;
      next += items[i];
    }
    carry += before.all;
  }
}

struct Move {
  const int32_t* keys;
  const int32_t* tokens;
  int32_t* to_keys;
  int32_t* to_tokens;
};

// One warp per tile. Lanes with the same digit get places in the order of lanes.
__global__ void __launch_bounds__(32)
    move_kernel(Move move, int64_t count, int shift, const int32_t* starts) {
  __shared__ int next[kDigits];
  const int lane = static_cast<int>(threadIdx.x);
  for (int digit = lane; digit < kDigits; digit += 32) {
    next[digit] = starts[int64_t{digit} * gridDim.x + blockIdx.x];
  }
  const int64_t begin = int64_t{blockIdx.x} * kTile;
  for (int64_t t = begin + lane; t - lane < min(count, begin + kTile); t += 32) {
    const bool is_token = t < count;
    const int32_t key = is_token ? move.keys[t] : 0;
    const int digit = is_token ? digit_of(key, shift) : kDigits;
    const unsigned alike = __match_any_sync(kAllLanes, digit);
    const int rank = __popc(alike & ((1u << lane) - 1));
    __syncwarp();  // the last round's places have been counted
    const int place = is_token ? next[digit] + rank : 0;
    __syncwarp();
    if (is_token && rank == 0) next[digit] += __popc(alike);
    if (!is_token) continue;
    move.to_keys[place] = key;
    move.to_tokens[place] = move.tokens[t];
  }
}

int64_t num_tiles(int64_t num_tokens) { return divide_up(num_tokens, kTile); }

}  // namespace

int64_t SortSpace::bytes(int64_t num_tokens) {
  return (4 * num_tokens + kDigits * num_tiles(num_tokens)) * int64_t{sizeof(int32_t)};
}

SortSpace::SortSpace(void* memory, int64_t num_tokens) {
  auto* next = static_cast<int32_t*>(memory);
  for (int32_t** array : {&keys[0], &keys[1], &tokens[0], &tokens[1]}) {
    *array = next;
    next += num_tokens;
  }
  counts = next;
}

SortedTokens sort_tokens(const int32_t* ids, int64_t num_tokens, int64_t first, int64_t count,
                         const SortSpace& space, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(divide_up(num_tokens, kThreads));
  const auto tiles = static_cast<unsigned>(num_tiles(num_tokens));
  launch({blocks, kThreads}, stream, keys_kernel, ids, num_tokens, first, count, space.keys[0],
         space.tokens[0]);
  int now = 0;
  for (int shift = 0; count >> shift != 0 && num_tokens > 0; shift += kDigitBits, now = 1 - now) {
    const Move move{space.keys[now], space.tokens[now], space.keys[1 - now], space.tokens[1 - now]};
    launch({tiles, kThreads}, stream, count_kernel, move.keys, num_tokens, shift, space.counts);
    launch({1, kScanThreads}, stream, scan_kernel, space.counts, int64_t{tiles} * kDigits);
    launch({tiles, 32}, stream, move_kernel, move, num_tokens, shift, space.counts);
  }
  return {space.keys[now], space.tokens[now]};
}

}  // namespace caravan::cuda
