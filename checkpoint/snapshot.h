// The tensors of a checkpoint while they are written: a writer thread reads them, in order,
// straight from the memory in which training goes on, until their owner is about to change them.
// Only what has not been read by then is copied, or waited for where the copy has no room. So a
// save costs no copy and no wait when the file is written before the next update begins.
//
// Threads: read() by one writer, detach() and cancel() by the owner.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "checkpoint/rank_file.h"

namespace caravan {

// Copies live memory, that may be a device's, to the host. Called by both threads.
using CopyOut = std::function<void(void* host, const void* live, int64_t bytes)>;
void copy_from_host_memory(void* host, const void* live, int64_t bytes);

class Snapshot {
 public:
  // The shards point to live memory. `copy` is room for what may have to be moved out of the way:
  // at most so many bytes are ever copied, none when it is empty. Both outlive the snapshot.
  Snapshot(std::span<const TensorShard> shards, std::span<std::byte> copy,
           CopyOut copy_out = copy_from_host_memory);
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  // Writer: bytes of a shard, from `first_byte` on. The calls walk over all bytes in order, once.
  // Throws a checkpoint error after cancel().
  void read(size_t shard, int64_t first_byte, std::span<std::byte> out);
  // Writer: it will not read any more, whatever is left.
  void close();

  // Owner: afterwards the live memory is not read any more. Waits for the writer while more is left
  // than the copy has room for; then copies the rest.
  void detach();
  // Owner: the writer shall give up.
  void cancel();

  int64_t bytes() const { return total_bytes_; }

 private:
  void copy_rest();

  std::span<const TensorShard> shards_;
  std::span<std::byte> copy_;
  CopyOut copy_out_;
  std::vector<int64_t> begin_;  // of each shard, when all lie one after another
  int64_t total_bytes_ = 0;

  std::mutex mutex_;  // guards what follows, and the copy
  std::condition_variable changed_;
  int64_t position_ = 0;  // bytes before it have been read
  int64_t copied_from_;   // bytes from here on lie in the copy
  bool cancelled_ = false;
};

}  // namespace caravan
