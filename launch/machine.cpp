#include "launch/machine.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace caravan {
namespace {

// The text after "label : " in /proc/cpuinfo, of the first processor.
std::string cpuinfo(const std::string& root, const std::string& label) {
  std::ifstream file(root + "/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (colon != std::string::npos && absl::StartsWith(line, label)) return line.substr(colon + 2);
  }
  return "";
}

int affinity_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

double processor_quota(const std::string& root) {
  std::ifstream version2(root + "/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (version2 >> quota >> period && period > 0) return quota / period;
  std::ifstream quota_file(root + "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream period_file(root + "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  const bool known = (quota_file >> quota) && (period_file >> period);
  return known && quota > 0 && period > 0 ? quota / period : 0;
}

int usable_processors(const std::string& root) {
  const int allowed = std::max(1, affinity_processors());
  const double quota = processor_quota(root);
  if (quota <= 0) return allowed;
  return std::clamp(static_cast<int>(std::ceil(quota)), 1, allowed);
}

std::string processor_name(const std::string& root) {
  const std::string name = cpuinfo(root, "model name");
  return name.empty() ? "unknown" : name;
}

std::vector<std::string> processor_vector_features(const std::string& root) {
  // In the order of their age; matrix units last.
  const std::vector<std::string> interesting = {
      "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"};
  const std::vector<std::string> present = absl::StrSplit(cpuinfo(root, "flags"), ' ');
  std::vector<std::string> features;
  for (const std::string& feature : interesting) {
    if (std::find(present.begin(), present.end(), feature) != present.end()) {
      features.push_back(feature);
    }
  }
  return features;
}

}  // namespace caravan
