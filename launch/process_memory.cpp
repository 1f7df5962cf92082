#include "launch/process_memory.h"

#include <fstream>
#include <string>

#include "runtime/error.h"

namespace caravan {
namespace {

// A line of /proc/self/status such as "VmRSS:     1234 kB".
int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    int64_t kib = 0;
    if (word == key && status >> kib) return kib * 1024;
  }
  throw internal_error("/proc/self/status has no " + key);
}

}  // namespace

int64_t resident_bytes() { return status_bytes("VmRSS:"); }

int64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

}  // namespace caravan
