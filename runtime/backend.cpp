// What backends say that do not record, and whose memory is that of the host.
#include "runtime/backend.h"

#include <cstring>

#include "runtime/error.h"

namespace caravan {

std::unique_ptr<Recording> Backend::record(const std::function<void()>&) {
  throw internal_error("[" + description() + "] does not record");
}

std::unique_ptr<DeviceMemory> Backend::reserve_host(int64_t bytes) { return reserve(bytes); }

void Backend::copy_for_communication(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace caravan
