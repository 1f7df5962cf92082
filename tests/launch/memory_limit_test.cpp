// Sizes, and what is read of the machine from folders that imitate /proc and /sys.
#include "runtime/memory_limit.h"

#include <fstream>

#include "tests/launch/messages.h"

namespace caravan {
namespace {

constexpr int64_t kMiB = 1 << 20, kGiB = 1 << 30;

void write_file(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

TEST(MemoryLimit, ReadsSizes) {
  EXPECT_EQ(parse_bytes("20GiB"), 20 * kGiB);
  EXPECT_EQ(parse_bytes("1.5 GiB"), 3 * kGiB / 2);
  EXPECT_EQ(parse_bytes("512MiB"), 512 * kMiB);
  EXPECT_EQ(parse_bytes("20GB"), 20'000'000'000);
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("1B"), 1);
  for (const char* text : {"", "GiB", "20G", "20gib", "-1GiB", "0", "0.1B", "20 GiB ", "nan", "inf",
                           "1e9GiB", "99999999TiB", "20  GiB"}) {
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
  }
}

TEST(MemoryLimit, WritesSizesExactly) {
  EXPECT_EQ(exact_bytes(20 * kGiB), "20GiB");
  EXPECT_EQ(exact_bytes(1536 * kMiB), "1536MiB");
  EXPECT_EQ(exact_bytes(1000), "1000");
  for (const int64_t bytes : {int64_t{1}, int64_t{1025}, 7 * kMiB, kGiB + 1, int64_t{1} << 42}) {
    EXPECT_EQ(parse_bytes(exact_bytes(bytes)), bytes);
  }
}

TEST(MemoryLimit, ReadsTheMachine) {
  const TemporaryFolder root;
  write_file(root / "proc/meminfo",
             "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n");
  const SystemMemory memory = read_system_memory(root.path());
  EXPECT_EQ(memory.total_bytes, 16 * kGiB);
  EXPECT_EQ(memory.available_bytes, 8 * kGiB);
  EXPECT_EQ(memory.cgroup_limit_bytes, std::nullopt);
}

TEST(MemoryLimit, TakesTheTightestGroupOfVersion2) {
  const TemporaryFolder root;
  write_file(root / "proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n");
  write_file(root / "proc/self/cgroup", "0::/job/step\n");
  write_file(root / "sys/fs/cgroup/job/step/memory.max", "max\n");
  write_file(root / "sys/fs/cgroup/job/memory.max", std::to_string(4 * kGiB) + "\n");
  write_file(root / "sys/fs/cgroup/job/memory.current", std::to_string(3 * kGiB) + "\n");
  write_file(root / "sys/fs/cgroup/job/memory.stat", "anon 1\ninactive_file " +
                                                         std::to_string(kGiB) + "\nactive_file " +
                                                         std::to_string(kGiB) + "\n");
  const SystemMemory memory = read_system_memory(root.path());
  EXPECT_EQ(memory.cgroup_limit_bytes, 4 * kGiB);
  EXPECT_EQ(memory.cgroup_available_bytes, 3 * kGiB);
}

TEST(MemoryLimit, ReadsVersion1AtTheMountOfAContainer) {
  const TemporaryFolder root;
  write_file(root / "proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n");
  write_file(root / "proc/self/cgroup",
             "4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n0::/\n");
  const std::string folder = root / "sys/fs/cgroup/memory/";
  write_file(folder + "memory.limit_in_bytes", std::to_string(2 * kGiB) + "\n");
  write_file(folder + "memory.usage_in_bytes", std::to_string(kGiB) + "\n");
  SystemMemory memory = read_system_memory(root.path());
  EXPECT_EQ(memory.cgroup_limit_bytes, 2 * kGiB);
  EXPECT_EQ(memory.cgroup_available_bytes, kGiB);
  write_file(folder + "memory.limit_in_bytes", "9223372036854771712\n");  // no limit
  memory = read_system_memory(root.path());
  EXPECT_EQ(memory.cgroup_limit_bytes, std::nullopt);
  EXPECT_EQ(memory.cgroup_available_bytes, std::nullopt);
}

TEST(MemoryLimit, SharesWhatIsFreeLessAMargin) {
  SystemMemory system;
  system.available_bytes = 8 * kGiB;
  system.cgroup_available_bytes = 4 * kGiB;
  const MemoryLimit limit =
      memory_limit({.configured_bytes = {}, .ranks_on_node = 2, .system = system});
  EXPECT_EQ(limit.bytes, (4 * kGiB - 4 * kGiB / 20 - 128 * kMiB) / 2);
  EXPECT_EQ(limit.source, "auto: 4.00 GiB free, less 332.8 MiB, shared by 2");
  EXPECT_EQ(config_message([] { memory_limit({.configured_bytes = {}, .system = {}}); }),
            "runtime.memory_limit: auto finds no /proc/meminfo; give a limit such as 8GiB");
}

TEST(MemoryLimit, TheVariableWinsOverTheConfiguration) {
  EXPECT_EQ(memory_limit({.configured_bytes = 5 * kGiB, .ranks_on_node = 2, .system = {}}).bytes,
            5 * kGiB);
  const ScopedVariable variable("CARAVAN_MEMLIMIT", "3GiB");
  const MemoryLimit limit = memory_limit({.configured_bytes = 5 * kGiB, .system = {}});
  EXPECT_EQ(limit.bytes, 3 * kGiB);
  EXPECT_EQ(limit.source, "CARAVAN_MEMLIMIT");
}

TEST(MemoryLimit, OfADeviceIsItsFreeMemory) {
  const MemoryLimit limit = memory_limit({.configured_bytes = {},
                                          .ranks_on_node = 2,
                                          .system = {},
                                          .device_free_bytes = 100 * kGiB});
  EXPECT_EQ(limit.bytes, (98 * kGiB - 512 * kMiB) / 2);
  EXPECT_EQ(limit.source, "auto: 100.00 GiB free on the device, less 2.50 GiB, shared by 2");
}

TEST(MemoryLimit, IsNeverMoreThanADeviceHas) {
  const auto limit = [](int64_t wanted) {
    return memory_limit({.configured_bytes = wanted,
                         .ranks_on_node = 2,
                         .system = {},
                         .device_free_bytes = 100 * kGiB});
  };
  EXPECT_EQ(limit(50 * kGiB).bytes, 50 * kGiB);
  EXPECT_EQ(limit(50 * kGiB).source, "runtime.memory_limit");
  EXPECT_EQ(limit(60 * kGiB).bytes, 50 * kGiB);
  EXPECT_EQ(limit(60 * kGiB).source,
            "runtime.memory_limit is 60.00 GiB, but so much is free on the device");
}

TEST(MemoryLimit, RefusesAMalformedVariable) {
  const ScopedVariable variable("CARAVAN_MEMLIMIT", "much");
  EXPECT_EQ(config_message([] { memory_limit({.configured_bytes = {}, .system = {}}); }),
            "CARAVAN_MEMLIMIT is 'much'; give a size such as 8GiB, or unset it");
}

}  // namespace
}  // namespace caravan
