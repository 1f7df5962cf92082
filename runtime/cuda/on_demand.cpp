#include "runtime/cuda/on_demand.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace caravan::cuda {

void call_of_closed_library() {
  std::fputs("internal error: [cuda] a function of a library that is not open was called\n",
             stderr);
  std::abort();
}

std::string open_library(const char* file, std::span<const OnDemandFunction> functions) {
  void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);  // never closed
  if (library == nullptr) return dlerror();
  for (const OnDemandFunction& function : functions) {
    void* const found = dlsym(library, function.name);
    if (found == nullptr) return dlerror();
    *function.address = found;
  }
  return "";
}

}  // namespace caravan::cuda
