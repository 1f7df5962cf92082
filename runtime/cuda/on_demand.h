// Functions of shared libraries that are opened when they are wanted, not when the program starts.
// So one build runs on machines with and without NVIDIA's libraries, and a run on the CPU does not
// carry them (cuBLASLt alone is 150 MB of a process).
//
// A function is defined here by its name: as a jump to where the library has it. Calling it before
// its library is open ends the program with a message.
#pragma once

#include <span>
#include <string>

namespace caravan::cuda {

struct OnDemandFunction {
  const char* name;
  void** address;
};

[[noreturn]] void call_of_closed_library();

// Opens the library and finds the functions. Returns what is wrong, "" when nothing is. Calls after
// the first one find everything again; not for several threads at a time.
std::string open_library(const char* file, std::span<const OnDemandFunction> functions);

// At namespace scope, once per function; the jump keeps all arguments where they are (x86-64).
#define CARAVAN_ON_DEMAND(function)                                                              \
  extern "C" {                                                                                   \
  void* caravan_address_##function =                                                             \
      reinterpret_cast<void*>(&caravan::cuda::call_of_closed_library);                           \
  }                                                                                              \
  asm(".text\n.globl " #function "\n.hidden " #function "\n.type " #function                     \
      ", @function\n" #function                                                                  \
      ":\n"                                                                                      \
      "  endbr64\n  jmp *caravan_address_" #function "(%rip)\n.size " #function ", .-" #function \
      "\n");
#define CARAVAN_ON_DEMAND_ENTRY(function) {#function, &caravan_address_##function},

}  // namespace caravan::cuda
