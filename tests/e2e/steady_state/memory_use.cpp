#include "tests/e2e/steady_state/memory_use.h"

#include <errno.h>
#include <execinfo.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>

#include "runtime/error.h"
#include "tests/e2e/steady_state/origin.h"

// A system call that the filter lets pass: it knows the address of the instruction after it.
// long pass_through(long number, long a, long b, long c, long d, long e, long f)
asm(R"(
  .text
  .globl pass_through
  .type pass_through, @function
pass_through:
  mov %rdi, %rax
  mov %rsi, %rdi
  mov %rdx, %rsi
  mov %rcx, %rdx
  mov %r8, %r10
  mov %r9, %r8
  mov 8(%rsp), %r9
  syscall
  .globl pass_through_end
pass_through_end:
  ret
)");

extern "C" {
long pass_through(long number, long a, long b, long c, long d, long e, long f);
void pass_through_end();
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* block, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
}

namespace caravan {
namespace {

std::atomic<bool> counts{false};
OriginTable table;

struct MemoryCall {
  long number;
  Request request;
  const char* name;
};
// The last of them is not given to the filter: a thread that ends calls it with all signals
// blocked, and would end the process. So it is not seen where the C library makes it itself, which
// shows as page faults once the memory is used again.
constexpr std::array<MemoryCall, kNumRequests - 1> kMemoryCalls = {{
    {SYS_mmap, Request::mmap, "mmap"},
    {SYS_munmap, Request::munmap, "munmap"},
    {SYS_mremap, Request::mremap, "mremap"},
    {SYS_brk, Request::brk, "brk"},
    {SYS_mprotect, Request::mprotect, "mprotect"},
    {SYS_madvise, Request::madvise, "madvise"},
}};
constexpr size_t kNumFiltered = kMemoryCalls.size() - 1;

// Counts the call that the kernel did not make, and makes it. The signal comes from the calling
// instruction itself, so it interrupts no generated code.
void on_memory_call(int, siginfo_t* info, void* context) {
  greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto* const from = reinterpret_cast<const void*>(registers[REG_RIP]);
  for (const MemoryCall& call : kMemoryCalls) {
    if (call.number == info->si_syscall && counts) table.add(call.request, from);
  }
  registers[REG_RAX] =
      pass_through(info->si_syscall, registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                   registers[REG_R10], registers[REG_R8], registers[REG_R9]);
}

void load(std::vector<sock_filter>& filter, size_t offset) {
  filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
}

std::vector<sock_filter> memory_call_filter() {
  const auto address = reinterpret_cast<uint64_t>(&pass_through_end);
  const size_t pointer = offsetof(seccomp_data, instruction_pointer);
  std::vector<sock_filter> filter;
  load(filter, offsetof(seccomp_data, nr));
  for (size_t i = 0; i < kNumFiltered; ++i) {
    const auto to_pointer_test = static_cast<uint8_t>(kNumFiltered - i);
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                              static_cast<uint32_t>(kMemoryCalls[i].number), to_pointer_test, 0));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  load(filter, pointer);
  filter.push_back(
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(address & 0xffffffff), 0, 3));
  load(filter, pointer + 4);
  filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(address >> 32), 0, 1));
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
  return filter;
}

void watch_memory_calls() {
  struct sigaction action {};
  action.sa_sigaction = on_memory_call;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  check(sigaction(SIGSYS, &action, nullptr) == 0, "sigaction: %s", std::strerror(errno));
  std::vector<sock_filter> filter = memory_call_filter();
  const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  const long result =
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  check(result == 0, "no filter of system calls for all threads: %d, %s", result,
        std::strerror(errno));
}

void note(Request request, const void* from) {
  if (counts.load(std::memory_order_relaxed)) table.add(request, from);
}

}  // namespace

void begin_memory_use() {
  void* frame = nullptr;
  backtrace(&frame, 1);  // loads what it needs the first time
  watch_memory_calls();
  counts = true;
}

MemoryUse end_memory_use() {
  counts = false;
  MemoryUse use;
  for (const Asked& asked : table.read()) {
    std::string what = "malloc";
    for (const MemoryCall& call : kMemoryCalls) {
      if (call.request == asked.request) what = call.name;
    }
    const bool is_heap = asked.request == Request::heap;
    (is_heap ? use.allocations[asked.by] : use.memory_calls[asked.by + " " + what]) += asked.count;
    if (asked.by != "own") continue;
    use.own_places.push_back(absl::StrFormat("%d x %s at%s", asked.count, what, asked.place));
  }
  return use;
}

}  // namespace caravan

// These take the place of the C library's in the whole process, libraries included. What they give
// is the C library's own, so its free() takes it back.
#define STAND_IN [[gnu::section("stand_ins")]]  // origin.cpp skips them

extern "C" {

STAND_IN void* malloc(size_t size) {
  caravan::note(caravan::Request::heap, __builtin_return_address(0));
  return __libc_malloc(size);
}

STAND_IN void* calloc(size_t count, size_t size) {
  caravan::note(caravan::Request::heap, __builtin_return_address(0));
  return __libc_calloc(count, size);
}

STAND_IN void* realloc(void* block, size_t size) {
  caravan::note(caravan::Request::heap, __builtin_return_address(0));
  return __libc_realloc(block, size);
}

STAND_IN void* memalign(size_t alignment, size_t size) {
  caravan::note(caravan::Request::heap, __builtin_return_address(0));
  return __libc_memalign(alignment, size);
}

STAND_IN void* aligned_alloc(size_t alignment, size_t size) {
  caravan::note(caravan::Request::heap, __builtin_return_address(0));
  return __libc_memalign(alignment, size);
}

STAND_IN int posix_memalign(void** block, size_t alignment, size_t size) {
  caravan::note(caravan::Request::heap, __builtin_return_address(0));
  *block = __libc_memalign(alignment, size);
  return *block == nullptr ? ENOMEM : 0;
}

STAND_IN int madvise(void* begin, size_t bytes, int advice) {
  caravan::note(caravan::Request::madvise, __builtin_return_address(0));
  return static_cast<int>(syscall(SYS_madvise, begin, bytes, advice));
}

}  // extern "C"
