#include "runtime/memory_limit.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "runtime/error.h"
#include "runtime/types.h"

namespace caravan {
namespace {

constexpr int64_t kMiB = 1 << 20;

struct Unit {
  std::string_view name;
  int64_t bytes;
};

constexpr Unit kUnits[] = {
    {"TiB", int64_t{1} << 40},
    {"GiB", 1 << 30},
    {"MiB", 1 << 20},
    {"KiB", 1 << 10},
    {"TB", 1000000000000},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"KB", 1000},
    {"B", 1},
    {"", 1},
};
constexpr int kNumBinaryUnits = 4;

// The first integer in the file that follows `label` at the start of a line ("" for the first
// line).
std::optional<int64_t> read_number(const std::string& path, std::string_view label = "") {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, label.size(), label) != 0) continue;
    std::istringstream rest(line.substr(label.size()));
    int64_t value = 0;
    if (rest >> value) return value;
    return {};  // "max": no limit
  }
  return {};
}

void keep_smaller(std::optional<int64_t>& smallest, std::optional<int64_t> value) {
  if (value && (!smallest || *value < *smallest)) smallest = value;
}

// The names that one version of cgroups uses.
struct CgroupFiles {
  const char *mount, *limit, *usage, *stat_prefix;
};

constexpr CgroupFiles kVersion1{"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                "memory.usage_in_bytes", "total_"};
constexpr CgroupFiles kVersion2{"/sys/fs/cgroup", "memory.max", "memory.current", ""};

// Where this process stands: of version 1 the line "N:memory:/path", of version 2 "0::/path".
std::optional<std::string> cgroup_path(const std::string& root, std::string_view controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    if (line.substr(first + 1, second - first - 1) == controller) return line.substr(second + 1);
  }
  return {};
}

void read_cgroup(const std::string& folder, const CgroupFiles& files, SystemMemory& memory) {
  const auto limit = read_number(folder + "/" + files.limit);
  if (!limit) return;
  keep_smaller(memory.cgroup_limit_bytes, limit);
  const auto usage = read_number(folder + "/" + files.usage);
  if (!usage) return;
  // Pages of files are given back when memory runs short, so they count as free.
  const std::string stat = folder + "/memory.stat";
  const int64_t cache =
      read_number(stat, std::string(files.stat_prefix) + "inactive_file ").value_or(0) +
      read_number(stat, std::string(files.stat_prefix) + "active_file ").value_or(0);
  keep_smaller(memory.cgroup_available_bytes,
               std::max<int64_t>(0, *limit - std::max<int64_t>(0, *usage - cache)));
}

// From the process's own group up to the mount: the tightest limit on the way holds. In a container
// the path of the host may not exist; the mount itself is then the container's group.
void read_cgroups(const std::string& root, const CgroupFiles& files, const std::string& path,
                  SystemMemory& memory) {
  std::filesystem::path group = std::filesystem::path(path).relative_path();
  for (; !group.empty(); group = group.parent_path()) {
    read_cgroup(root + files.mount + "/" + group.string(), files, memory);
  }
  read_cgroup(root + files.mount, files, memory);
}

int64_t automatic_bytes(const SystemMemory& system) {
  std::optional<int64_t> free = system.available_bytes;
  keep_smaller(free, system.cgroup_available_bytes);
  keep_smaller(free, system.cgroup_limit_bytes);
  if (!free) {
    throw config_error(
        "runtime.memory_limit: auto finds no /proc/meminfo; give a limit such as 8GiB");
  }
  return *free;
}

}  // namespace

std::optional<int64_t> parse_bytes(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc{} || !std::isfinite(value)) return {};
  std::string_view suffix(rest, static_cast<size_t>(end - rest));
  if (!suffix.empty() && suffix[0] == ' ') suffix.remove_prefix(1);
  for (const Unit& unit : kUnits) {
    if (suffix != unit.name) continue;
    const double bytes = value * static_cast<double>(unit.bytes);
    if (bytes < 1 || bytes >= 9.2e18) return {};
    return static_cast<int64_t>(bytes);
  }
  return {};
}

std::string exact_bytes(int64_t bytes) {
  for (int i = 0; i < kNumBinaryUnits; ++i) {
    if (bytes < kUnits[i].bytes || bytes % kUnits[i].bytes != 0) continue;
    return absl::StrFormat("%d%s", bytes / kUnits[i].bytes, kUnits[i].name);
  }
  return absl::StrFormat("%d", bytes);
}

SystemMemory read_system_memory(const std::string& root) {
  SystemMemory memory;
  const std::string meminfo = root + "/proc/meminfo";
  const auto total_kib = read_number(meminfo, "MemTotal:");
  const auto available_kib = read_number(meminfo, "MemAvailable:");
  if (total_kib) memory.total_bytes = *total_kib * 1024;
  if (available_kib) memory.available_bytes = *available_kib * 1024;
  if (const auto path = cgroup_path(root, "memory")) read_cgroups(root, kVersion1, *path, memory);
  if (const auto path = cgroup_path(root, "")) read_cgroups(root, kVersion2, *path, memory);
  // Version 1 says "no limit" with a number beyond any machine.
  if (memory.total_bytes && memory.cgroup_limit_bytes > memory.total_bytes) {
    memory.cgroup_limit_bytes.reset();
    memory.cgroup_available_bytes.reset();
  }
  return memory;
}

namespace {

// What somebody asks for, but no more than a rank's share of what is free on its device.
MemoryLimit wanted_limit(int64_t bytes, const std::string& source,
                         const MemoryLimitRequest& request) {
  if (!request.device_free_bytes) return {bytes, source};
  const int64_t share = *request.device_free_bytes / request.ranks_on_node;
  if (bytes <= share) return {bytes, source};
  return {share, absl::StrFormat("%s is %s, but so much is free on the device", source,
                                 format_bytes(bytes))};
}

}  // namespace

MemoryLimit memory_limit(const MemoryLimitRequest& request) {
  check(request.ranks_on_node >= 1, "ranks_on_node is %d", request.ranks_on_node);
  if (const char* text = std::getenv("CARAVAN_MEMLIMIT")) {
    const auto bytes = parse_bytes(text);
    if (!bytes) {
      throw config_error(
          absl::StrFormat("CARAVAN_MEMLIMIT is '%s'; give a size such as 8GiB, or unset it", text));
    }
    return wanted_limit(*bytes, "CARAVAN_MEMLIMIT", request);
  }
  if (request.configured_bytes) {
    return wanted_limit(*request.configured_bytes, "runtime.memory_limit", request);
  }
  if (request.device_free_bytes) {
    // The margin is for what libraries take when they start to work, and the driver with them.
    const int64_t device_free = *request.device_free_bytes;
    const int64_t device_margin = device_free / 50 + 512 * kMiB;
    return {std::max<int64_t>(0, device_free - device_margin) / request.ranks_on_node,
            absl::StrFormat("auto: %s free on the device, less %s, shared by %d",
                            format_bytes(device_free), format_bytes(device_margin),
                            request.ranks_on_node)};
  }
  // The margin is for what nobody plans: the kernel's page tables, libraries, the user's shell.
  const int64_t free = automatic_bytes(request.system);
  const int64_t margin = free / 20 + 128 * kMiB;
  const int64_t share = std::max<int64_t>(0, free - margin) / request.ranks_on_node;
  return {share, absl::StrFormat("auto: %s free, less %s, shared by %d", format_bytes(free),
                                 format_bytes(margin), request.ranks_on_node)};
}

}  // namespace caravan
