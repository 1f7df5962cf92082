#include "tests/cuda_emulator/fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

namespace caravan::emulator {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kMaxThreads = 1024;
constexpr size_t kMaxShared = 227 << 10;  // of a block, on Hopper

// Saves the registers that a call keeps (System V x86-64) on the old stack and takes those of the
// new one. Control words of the floating-point units are the same in all fibers.
extern "C" void caravan_switch_stack(void** save_old, void* load_new);
asm(R"(
.text
.globl caravan_switch_stack
.type caravan_switch_stack, @function
caravan_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size caravan_switch_stack, .-caravan_switch_stack
)");

enum class Waits : uint8_t { no, block, warp };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Fiber {
  ThreadState state;
  std::vector<Copy> open_group;
  std::deque<std::vector<Copy>> groups;
  void* stack_pointer = nullptr;
  bool done = false;
  Waits waits = Waits::no;
  unsigned mask = 0;  // of a warp barrier
  uint64_t num_exchanges = 0;
};

struct Warp {
  std::array<std::array<std::byte, 32 * kExchangeBytes>, 2> slots;  // of this exchange and the last
};

// Of one thread of the host; its stacks are kept from launch to launch.
class Block {
 public:
  Block();
  ~Block() { munmap(stacks_, kStackBytes * kMaxThreads); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void run(const ThreadState& first, size_t shared_bytes, const std::function<void()>& body,
           bool reverse);
  Fiber& current() { return fibers_[current_]; }
  Warp& warp() { return warps_[current_ / 32]; }
  void wait(Waits what, unsigned mask);
  std::byte* shared() { return shared_; }

 private:
  static void enter();
  void prepare(size_t i, const ThreadState& state);
  void release();
  void release_warp(size_t i);
  void resume(size_t i);

  std::byte* stacks_;
  std::unique_ptr<std::byte[]> shared_storage_;
  std::byte* shared_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  size_t current_ = 0;
  void* scheduler_ = nullptr;  // its stack pointer
  const std::function<void()>* body_ = nullptr;
  std::exception_ptr error_;
};

Block& this_block() {
  thread_local Block block;
  return block;
}

Block::Block()
    : stacks_(
          static_cast<std::byte*>(mmap(nullptr, kStackBytes * kMaxThreads, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
      shared_storage_(new std::byte[kMaxShared + 128]) {
  if (stacks_ == MAP_FAILED) throw std::runtime_error("emulator: no memory for stacks");
  const auto address = reinterpret_cast<uintptr_t>(shared_storage_.get());
  shared_ = shared_storage_.get() + (128 - address % 128) % 128;
}

void Block::enter() {
  Block& block = this_block();
  try {
    (*block.body_)();
  } catch (...) {
    if (!block.error_) block.error_ = std::current_exception();
  }
  Fiber& fiber = block.current();
  fiber.done = true;
  void* unused = nullptr;
  caravan_switch_stack(&unused, block.scheduler_);
}

void Block::prepare(size_t i, const ThreadState& state) {
  Fiber& fiber = fibers_[i];
  fiber = {};
  fiber.state = state;
  // As if it had called caravan_switch_stack from the first instruction of `enter`.
  auto** top = reinterpret_cast<void**>(stacks_ + (i + 1) * kStackBytes);
  *--top = nullptr;  // keeps the alignment that a call gives, and ends a backtrace
  *--top = reinterpret_cast<void*>(&Block::enter);
  for (int reg = 0; reg < 6; ++reg) *--top = nullptr;
  fiber.stack_pointer = top;
}

void Block::resume(size_t i) {
  current_ = i;
  caravan_switch_stack(&scheduler_, fibers_[i].stack_pointer);
}

void Block::wait(Waits what, unsigned mask) {
  Fiber& fiber = current();
  fiber.waits = what;
  fiber.mask = mask;
  caravan_switch_stack(&fiber.stack_pointer, scheduler_);
}

// When all lanes that fiber i waits for are at a barrier with it: they go on. One that has ended
// never comes.
void Block::release_warp(size_t i) {
  const size_t first = i / 32 * 32;
  const unsigned mask = fibers_[i].mask;
  for (size_t lane = 0; lane < 32 && first + lane < fibers_.size(); ++lane) {
    const Fiber& other = fibers_[first + lane];
    if (((mask >> lane) & 1u) == 0) continue;
    if (other.done || other.waits != Waits::warp || other.mask != mask) return;
  }
  for (size_t lane = 0; lane < 32 && first + lane < fibers_.size(); ++lane) {
    if (((mask >> lane) & 1u) != 0) fibers_[first + lane].waits = Waits::no;
  }
}

// Lets those go on whose barrier is complete.
void Block::release() {
  const bool block_complete = std::ranges::all_of(
      fibers_, [](const Fiber& f) { return f.done || f.waits == Waits::block; });
  if (block_complete) {
    for (Fiber& fiber : fibers_) fiber.waits = Waits::no;
    return;
  }
  for (size_t i = 0; i < fibers_.size(); ++i) {
    if (!fibers_[i].done && fibers_[i].waits == Waits::warp) release_warp(i);
  }
}

void Block::run(const ThreadState& first, size_t shared_bytes, const std::function<void()>& body,
                bool reverse) {
  const dim3 dim = first.block_dim;
  const size_t count = size_t{dim.x} * dim.y * dim.z;
  if (count == 0 || count > kMaxThreads || shared_bytes > kMaxShared) {
    throw std::runtime_error("emulator: a block of " + std::to_string(count) + " threads and " +
                             std::to_string(shared_bytes) + " shared bytes cannot be launched");
  }
  std::memset(shared_, 0xff, shared_bytes);
  fibers_.resize(count);
  warps_.resize((count + 31) / 32);
  body_ = &body;
  error_ = nullptr;
  for (size_t i = 0; i < count; ++i) {
    ThreadState state = first;
    const auto at = static_cast<unsigned>(i);
    state.thread = {at % dim.x, at / dim.x % dim.y, at / dim.x / dim.y};
    state.lane = static_cast<int>(i % 32);
    prepare(i, state);
  }
  for (bool any = true; any && !error_;) {
    any = false;
    for (size_t k = 0; k < count; ++k) {
      const size_t i = reverse ? count - 1 - k : k;
      if (fibers_[i].done || fibers_[i].waits != Waits::no) continue;
      any = true;
      resume(i);
    }
    if (!any) {
      release();
      any = std::ranges::any_of(fibers_,
                                [](const Fiber& f) { return !f.done && f.waits == Waits::no; });
    }
  }
  body_ = nullptr;
  if (error_) std::rethrow_exception(error_);
  if (!std::ranges::all_of(fibers_, &Fiber::done)) {
    throw std::runtime_error("emulator: threads of a block wait at different barriers");
  }
}

}  // namespace

const ThreadState& current_thread() { return this_block().current().state; }

void block_barrier() { this_block().wait(Waits::block, 0); }
void warp_barrier(unsigned mask) { this_block().wait(Waits::warp, mask); }

const std::byte* warp_exchange(unsigned mask, const void* value, size_t bytes) {
  Block& block = this_block();
  Fiber& fiber = block.current();
  std::byte* slots = block.warp().slots[fiber.num_exchanges++ % 2].data();
  std::memcpy(slots + static_cast<size_t>(fiber.state.lane) * kExchangeBytes, value, bytes);
  block.wait(Waits::warp, mask);
  return slots;
}

void begin_copy(void* to, const void* from, size_t bytes) {
  this_block().current().open_group.push_back({to, from, bytes});
}

void end_copy_group() {
  Fiber& fiber = this_block().current();
  fiber.groups.push_back(std::move(fiber.open_group));
  fiber.open_group.clear();
}

void finish_copy_groups(int pending) {
  auto& groups = this_block().current().groups;
  for (; std::ssize(groups) > pending; groups.pop_front()) {
    for (const Copy& copy : groups.front()) {
      if (copy.from == nullptr) {
        std::memset(copy.to, 0, copy.bytes);
      } else {
        std::memcpy(copy.to, copy.from, copy.bytes);
      }
    }
  }
}

std::byte* shared_memory() { return this_block().shared(); }

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  thread_local bool reverse = false;
  reverse = !reverse;
  ThreadState state;
  state.block_dim = block;
  state.grid_dim = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        state.block = {x, y, z};
        this_block().run(state, shared_bytes, body, reverse);
      }
    }
  }
}

}  // namespace caravan::emulator
