// The one reservation of memory on a device. Low end: the persistent region (parameters, optimizer
// state, accumulators). High end: the transient region, as large as the largest Program needs and
// shared by all of them. Nothing else allocates device memory.
#pragma once

#include <memory>

#include "runtime/backend.h"
#include "runtime/program.h"

namespace caravan {

class Arena {
 public:
  // Reserves, zeroes and touches all bytes.
  Arena(Backend& backend, PersistentLayout layout, int64_t transient_bytes);

  // The address of a value of a program planned on this arena's layout.
  std::byte* at(const Location& location, const Mesh& mesh) const;
  std::byte* transient() const { return memory_->data() + layout_.bytes; }
  // The address of a persistent value by its name; an internal error when there is none.
  std::byte* persistent(const std::string& name) const;

  std::span<std::byte> memory() const {
    return {memory_->data(), static_cast<size_t>(memory_->bytes())};
  }
  const PersistentLayout& layout() const { return layout_; }
  int64_t transient_bytes() const { return transient_bytes_; }
  int64_t bytes() const { return layout_.bytes + transient_bytes_; }

 private:
  PersistentLayout layout_;
  int64_t transient_bytes_;
  std::unique_ptr<DeviceMemory> memory_;
};

}  // namespace caravan
