// How many bytes this process may hold: CARAVAN_MEMLIMIT, else the configured limit, else what the
// machine and its control group (cgroup v1 or v2) have free, less a margin, shared by the ranks of
// the node. It only answers; whoever plans the arena keeps to it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caravan {

// "20GiB", "1.5 GiB", "512MiB", "20GB" (decimal), "1048576"; nothing when it is not a positive
// size.
std::optional<int64_t> parse_bytes(std::string_view text);

// The shortest text that parse_bytes reads as exactly `bytes`: "20GiB", "1536MiB", "1000".
std::string exact_bytes(int64_t bytes);

// What Linux says about memory; absent where it says nothing.
struct SystemMemory {
  std::optional<int64_t> total_bytes;             // MemTotal
  std::optional<int64_t> available_bytes;         // MemAvailable
  std::optional<int64_t> cgroup_limit_bytes;      // the tightest limit from here to the root
  std::optional<int64_t> cgroup_available_bytes;  // that limit, less what is in use and not cache
};

// Reads /proc and /sys/fs/cgroup below `root` ("" outside tests).
SystemMemory read_system_memory(const std::string& root = "");

struct MemoryLimit {
  int64_t bytes = 0;
  std::string source;  // "CARAVAN_MEMLIMIT", "configured", "auto: half of 23.4 GiB free, less ..."
};

struct MemoryLimitRequest {
  std::optional<int64_t> configured_bytes;  // absent: auto
  int ranks_on_node = 1;  // or on the device; auto is divided by it; a given limit is per rank
  SystemMemory system;
  // Of the device that the arena lies on, when that has memory of its own: auto is of this then.
  std::optional<int64_t> device_free_bytes = {};
};

// Throws a config error when CARAVAN_MEMLIMIT is malformed or when nothing is known of the machine.
MemoryLimit memory_limit(const MemoryLimitRequest& request);

}  // namespace caravan
