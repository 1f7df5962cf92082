#include "launch/process_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string_view>

#include "runtime/error.h"

namespace caravan {
namespace {

// A line of /proc/self/status such as "VmRSS:     1234 kB". Every step asks, so nothing is
// allocated.
int64_t status_bytes(std::string_view key) {
  std::array<char, 4096> buffer;  // of some 1500 bytes
  const int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  const ssize_t size = read(file, buffer.data(), buffer.size());
  close(file);
  const std::string_view status(buffer.data(), size < 0 ? 0 : static_cast<size_t>(size));
  size_t at = status.find(key);
  if (at != std::string_view::npos) at = status.find_first_of("0123456789", at + key.size());
  check(at != std::string_view::npos, "/proc/self/status has no %s", key);
  int64_t kib = 0;
  std::from_chars(status.data() + at, status.data() + status.size(), kib);
  return kib * 1024;
}

}  // namespace

int64_t resident_bytes() { return status_bytes("VmRSS:"); }

int64_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

}  // namespace caravan
