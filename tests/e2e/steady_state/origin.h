// Who asked? The nearest caller outside the C and C++ libraries, and a table of how often each
// did. Nothing in here allocates: it runs inside malloc and inside system calls.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace caravan {

// What was asked for.
enum class Request : uint8_t { heap, mmap, munmap, mremap, brk, madvise, mprotect };
inline constexpr int kNumRequests = 7;

struct Asked {
  Request request = Request::heap;
  std::string by;  // "own", or the name of a library
  int64_t count = 0;
  std::string place;  // of "own": addresses in the program, nearest caller first
};

// Any thread may add while another one does.
class OriginTable {
 public:
  // `from`: an address in the caller, of which the stack tells the rest.
  void add(Request request, const void* from);
  std::vector<Asked> read() const;

 private:
  static constexpr int kDepth = 6;  // frames of the program that tell places apart
  struct Entry {
    Request request = Request::heap;
    const char* library = nullptr;  // as the dynamic linker calls it; "" is the program
    std::array<uintptr_t, kDepth> place{};
    int64_t count = 0;
  };
  static Entry entry_of(Request request, const void* from);

  std::atomic_flag is_used_;  // a lock that never asks anybody for memory
  std::array<Entry, 512> entries_;
  size_t size_ = 0;
};

}  // namespace caravan
