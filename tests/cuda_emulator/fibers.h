// The threads of one block as fibers: each runs until it waits for others, then the next one goes
// on. Blocks run one after another. Every other launch runs the threads in reverse order, so that a
// missing barrier shows as a wrong result.
//
// A block that can never go on (threads at different barriers) is an error that says so.
#pragma once

#include <cstddef>
#include <functional>

#include <vector_types.h>

namespace caravan::emulator {

inline constexpr size_t kExchangeBytes = 32;  // the most that a lane can pass to its warp

struct ThreadState {
  uint3 thread{};
  uint3 block{};
  dim3 block_dim;
  dim3 grid_dim;
  int lane = 0;
};

// Of the fiber that runs.
const ThreadState& current_thread();
void block_barrier();
void warp_barrier(unsigned mask);
// All lanes of the mask pass bytes; returns what they passed, by lane, kExchangeBytes apart. Valid
// until the warp's next exchange but one.
const std::byte* warp_exchange(unsigned mask, const void* value, size_t bytes);

// Copies of the thread that runs, made when it finishes their group; null gives zeros.
void begin_copy(void* to, const void* from, size_t bytes);
void end_copy_group();
void finish_copy_groups(int pending);  // all but the newest `pending`

// Dynamic shared memory of the block that runs; aligned to 128 bytes. NaN when a block begins.
std::byte* shared_memory();

// Runs `body` once for every thread of every block. `shared_bytes`: of dynamic shared memory.
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);

}  // namespace caravan::emulator
