// What this process asks for between two moments: allocations of the heap and system calls for
// memory, each by who is responsible for it. All threads are counted. To find out who it was makes
// page faults of its own, so those are not counted here.
//
// Responsible is the nearest caller outside the C and C++ libraries: growth of a std::vector is
// that of who holds the vector. "own" is the program itself; everything else has the name of its
// library, such as "libmpi.so.40". Functions that malloc's callers reach without an object need
// globals; so this is for one test program alone.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace caravan {

struct MemoryUse {
  std::map<std::string, int64_t> allocations;   // by who asked
  std::map<std::string, int64_t> memory_calls;  // "libgomp.so.1 mmap", "own brk"
  std::vector<std::string> own_places;          // where the program asked: addresses, nearest first
};

// Once each, in this order. The first puts every thread under a filter of the kernel that hands
// calls for memory to this process; what it cannot do is an internal error.
void begin_memory_use();
MemoryUse end_memory_use();

}  // namespace caravan
