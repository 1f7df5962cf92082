#include "runtime/arena.h"

#include <algorithm>

#include "runtime/error.h"

namespace caravan {

Arena::Arena(Backend& backend, PersistentLayout layout, int64_t transient_bytes)
    : layout_(std::move(layout)),
      transient_bytes_(transient_bytes),
      memory_(backend.reserve(std::max<int64_t>(layout_.bytes + transient_bytes, 1))) {}

std::byte* Arena::at(const Location& location, const Mesh& mesh) const {
  const int64_t base = location.region == Region::persistent ? 0 : layout_.bytes;
  const int64_t slice = location.slice_stride * mesh.coordinate(location.slice_axis);
  return memory_->data() + base + location.offset + slice;
}

std::byte* Arena::persistent(const std::string& name) const {
  const auto found = layout_.by_name.find(name);
  check(found != layout_.by_name.end(), "the arena has no persistent value '%s'", name);
  return memory_->data() + layout_.entries[found->second].offset;
}

}  // namespace caravan
