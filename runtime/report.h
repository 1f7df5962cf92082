// What a plan costs in memory, before anything is reserved: a table by category, the largest values
// at the peak, and the check against the memory limit. Only arithmetic on plans; prints nothing.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/memory_limit.h"
#include "runtime/program.h"

namespace caravan {

// What the process holds beside the arena: libraries, batches that are read ahead.
struct HostMemory {
  std::string name;
  int64_t bytes = 0;
};

struct ReportOptions {
  std::optional<MemoryLimit> limit = {};  // absent: the table ends with the sum
  std::vector<HostMemory> host = {};
  // The arena lies on a device with memory of its own: the limit is for that, and what the host
  // holds is shown, but not counted. `held`: what the device held already when the limit was found.
  bool is_on_device = false;
  std::vector<HostMemory> held = {};
  size_t num_largest = 10;
  // How the plan is shared, for the advice of over_limit: parallel.zero, and ranks of Axis::dp.
  int zero = 0;
  int64_t dp = 1;
};

// Of one rank. The peak is the step of the largest program at which the most bytes are live.
// persistent + at_peak over all categories, alignment and fragmentation are the arena exactly.
struct MemoryReport {
  struct ProgramUse {
    std::string name;
    size_t num_steps = 0;
    int64_t max_live_bytes = 0;
    int64_t plan_bytes = 0;
    int peak_step = 0;

    double ratio() const;  // plan / max live: 1 is the best possible
  };

  std::vector<ProgramUse> programs = {};
  size_t largest_program = 0;  // index into programs: its plan is the transient region
  std::string peak_node = {};  // what runs at the peak: "layers.3.mlp swiglu"
  std::array<int64_t, kNumMemoryCategories> persistent_bytes = {};  // by MemoryCategory, aligned
  std::array<int64_t, kNumMemoryCategories> peak_bytes = {};
  int64_t fragmentation_bytes = 0;  // plan - max live of the largest program
  int64_t arena_bytes = 0;
  std::vector<Block> largest = {};  // at the peak, the largest first
  std::vector<HostMemory> host = {};
  bool is_on_device = false;
  std::vector<HostMemory> held = {};
  std::optional<MemoryLimit> limit = {};
  int zero = 0;
  int64_t dp = 1;

  int64_t host_bytes() const;
  int64_t process_bytes() const;  // arena and host; on a device: the arena
};

// `programs` is not empty and shares `layout`.
MemoryReport memory_report(const PersistentLayout& layout, std::span<const Program> programs,
                           const ReportOptions& options = {});

// The table, for people; every line ends with a newline.
std::string to_string(const MemoryReport& report);

// One line when the process would hold more than the limit, else "": what it needs, the limit and
// who set it, the difference, the category that takes the most and the key that makes it smaller.
std::string over_limit(const MemoryReport& report);

// Throws that as a config error. Print the table first.
void check_limit(const MemoryReport& report);

}  // namespace caravan
