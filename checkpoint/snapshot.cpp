#include "checkpoint/snapshot.h"

#include <algorithm>
#include <cstring>

#include "runtime/error.h"

namespace caravan {

void copy_from_host_memory(void* host, const void* live, int64_t bytes) {
  std::memcpy(host, live, static_cast<size_t>(bytes));
}

Snapshot::Snapshot(std::span<const TensorShard> shards, std::span<std::byte> copy, CopyOut copy_out)
    : shards_(shards), copy_(copy), copy_out_(std::move(copy_out)) {
  for (const TensorShard& shard : shards_) {
    begin_.push_back(total_bytes_);
    total_bytes_ += size_bytes(shard);
  }
  copied_from_ = total_bytes_;
}

void Snapshot::read(size_t shard, int64_t first_byte, std::span<std::byte> out) {
  const std::lock_guard lock(mutex_);
  if (cancelled_) throw checkpoint_error("the save was given up");
  const int64_t at = begin_[shard] + first_byte;
  check(at == position_, "snapshot: byte %d is read after byte %d", at, position_);
  if (at >= copied_from_) {
    std::memcpy(out.data(), copy_.data() + (at - copied_from_), out.size());
  } else {
    copy_out_(out.data(), static_cast<const std::byte*>(shards_[shard].data) + first_byte,
              std::ssize(out));
  }
  position_ += static_cast<int64_t>(out.size());
  changed_.notify_all();
}

void Snapshot::close() {
  const std::lock_guard lock(mutex_);
  position_ = total_bytes_;
  changed_.notify_all();
}

void Snapshot::detach() {
  std::unique_lock lock(mutex_);
  if (copied_from_ < total_bytes_) return;  // done before
  const auto room = static_cast<int64_t>(copy_.size());
  changed_.wait(lock, [&] { return total_bytes_ - position_ <= room; });
  if (position_ < total_bytes_) copy_rest();
}

// The writer waits for the lock meanwhile.
void Snapshot::copy_rest() {
  copied_from_ = position_;
  for (size_t i = 0; i < shards_.size(); ++i) {
    const int64_t end = begin_[i] + size_bytes(shards_[i]);
    const int64_t begin = std::max(begin_[i], copied_from_);
    if (begin >= end) continue;
    copy_out_(copy_.data() + (begin - copied_from_),
              static_cast<const std::byte*>(shards_[i].data) + (begin - begin_[i]), end - begin);
  }
}

void Snapshot::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  changed_.notify_all();
}

}  // namespace caravan
