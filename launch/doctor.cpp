#include "launch/doctor.h"

#include <hdf5.h>
#include <mpi.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "launch/machine.h"
#include "parallel/nccl_communicator.h"
#include "runtime/cpu/gemm_kernel.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"
#include "runtime/memory_limit.h"
#include "runtime/types.h"

namespace caravan {
namespace {

constexpr int64_t kMiB = 1 << 20;

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);  // allowed before MPI_Init
  return std::string(text, std::find(text, text + length, ','));
}

std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return absl::StrFormat("%d.%d.%d", major, minor, release);
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  for (const absl::string_view folder : absl::StrSplit(path ? path : "", ':')) {
    const std::string file = std::string(folder) + "/" + name;
    if (access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

void add_versions(DoctorReport& report) {
  report.facts.push_back({"caravan", CARAVAN_VERSION});
  report.facts.push_back({"compiler", "GCC " __VERSION__});
  report.facts.push_back({"MPI", mpi_version()});
  report.facts.push_back({"HDF5", hdf5_version()});
  report.facts.push_back({"CPU kernels", cpu::best_gemm_kernel().name});
  report.facts.push_back({"yaml-cpp", CARAVAN_YAML_CPP_VERSION});
  report.facts.push_back({"SentencePiece", CARAVAN_SENTENCEPIECE_VERSION});
  report.facts.push_back({"PCRE2", CARAVAN_PCRE2_VERSION});
  report.facts.push_back({"libzip", CARAVAN_LIBZIP_VERSION});
  const std::string mpirun = find_program("mpirun");
  report.facts.push_back({"mpirun", mpirun.empty() ? "not found" : mpirun});
  if (mpirun.empty()) {
    report.findings.push_back({"mpirun is not in PATH: only one process can be started",
                               "install the package openmpi-bin, or run launch/setup.sh"});
  }
}

std::string or_none(const std::string& version) { return version.empty() ? "none" : version; }

void add_cuda_devices(DoctorReport& report, const CudaStatus& status) {
  for (size_t i = 0; i < status.devices.size(); ++i) {
    const CudaDevice& device = status.devices[i];
    report.facts.push_back(
        {absl::StrFormat("cuda:%d", i),
         absl::StrFormat("%s, capability %d.%d, %s, %s free", device.name, device.major,
                         device.minor, format_bytes(device.total_bytes),
                         format_bytes(device.free_bytes))});
    if (device.major >= 8) continue;
    report.findings.push_back(
        {absl::StrFormat("cuda:%d is too old: it has no bf16 matrix units", i),
         "use an A100 or newer, or runtime.device=cpu"});
  }
}

void add_cuda(DoctorReport& report) {
  const CudaStatus status = examine_cuda(true);
  if (!status.is_built_in) {
    report.facts.push_back({"CUDA", "not in this build"});
    if (std::filesystem::exists("/dev/nvidiactl")) {
      report.findings.push_back({"this machine has an NVIDIA device that this build cannot use",
                                 "install the CUDA toolkit 13 and configure with "
                                 "-DCARAVAN_CUDA=ON"});
    }
    return;
  }
  report.facts.push_back({"CUDA driver", or_none(status.driver)});
  report.facts.push_back({"CUDA toolkit", status.runtime});
  report.facts.push_back({"cuDNN", or_none(status.cudnn)});
  report.facts.push_back({"NCCL", or_none(nccl_version())});
  add_cuda_devices(report, status);
  const bool has_device = std::filesystem::exists("/dev/nvidiactl");
  if (status.problem.empty() || !has_device) {
    if (!status.problem.empty()) report.facts.push_back({"CUDA devices", status.problem});
  } else {
    report.findings.push_back({"CUDA: " + status.problem,
                               "update the NVIDIA driver, or give the "
                               "container access to it (--gpus all)"});
  }
  if (status.devices.empty()) return;
  if (status.cudnn.empty()) {
    report.findings.push_back(
        {"there is no cuDNN: attention uses slower kernels",
         "install cuDNN 9 (cudnn-cuda-13), and configure again if it was built without"});
  }
  if (nccl_version().empty() && status.devices.size() > 1) {
    report.findings.push_back({"there is no NCCL: ranks communicate through the host",
                               "install libnccl-dev, and configure again if it was built without"});
  }
}

void add_processors(DoctorReport& report) {
  const std::vector<std::string> features = processor_vector_features();
  const double quota = processor_quota();
  report.facts.push_back({"processor", processor_name()});
  report.facts.push_back({"vector features", absl::StrJoin(features, " ")});
  report.facts.push_back(
      {"usable processors",
       absl::StrFormat("%d of %d%s", usable_processors(), sysconf(_SC_NPROCESSORS_ONLN),
                       quota > 0 ? absl::StrFormat(", quota %.1f", quota) : "")});
  if (std::find(features.begin(), features.end(), "avx2") == features.end()) {
    report.findings.push_back(
        {"the processor has no AVX2: matrix products are several times slower",
         "use a machine from 2015 or later"});
  }
}

std::string known_bytes(const std::optional<int64_t>& bytes, const char* otherwise) {
  return bytes ? format_bytes(*bytes) : otherwise;
}

void add_memory(DoctorReport& report) {
  const SystemMemory system = read_system_memory();
  report.facts.push_back({"memory", known_bytes(system.total_bytes, "unknown") + ", available " +
                                        known_bytes(system.available_bytes, "unknown")});
  report.facts.push_back({"cgroup memory limit", known_bytes(system.cgroup_limit_bytes, "none")});
  const MemoryLimit limit = memory_limit({.configured_bytes = {}, .system = system});
  report.facts.push_back({"memory_limit: auto",
                          format_bytes(limit.bytes) + " for one process (" + limit.source + ")"});
  if (limit.bytes < 1024 * kMiB) {
    report.findings.push_back({"less than 1 GiB of memory is free",
                               "stop other programs, or use a machine with more memory"});
  }
}

void add_shared_memory(DoctorReport& report) {
  struct statvfs info {};
  const bool known = statvfs("/dev/shm", &info) == 0;
  const auto free = static_cast<int64_t>(info.f_bavail * info.f_frsize);
  report.facts.push_back({"/dev/shm", known ? format_bytes(free) + " free" : "not there"});
  if (!known || free < 64 * kMiB) {
    report.findings.push_back(
        {"/dev/shm is small: MPI needs it between processes of a node",
         "start the container with --shm-size=1g, or mount a larger tmpfs there"});
  }
}

void add_locked_memory(DoctorReport& report) {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool unlimited = limit.rlim_cur == RLIM_INFINITY;
  report.facts.push_back(
      {"ulimit -l", unlimited ? "unlimited" : format_bytes(static_cast<int64_t>(limit.rlim_cur))});
  const bool has_infiniband = std::filesystem::exists("/dev/infiniband");
  if (!unlimited && has_infiniband) {
    report.findings.push_back({"InfiniBand is here, but memory cannot be locked without limit",
                               "set 'ulimit -l unlimited' before starting"});
  }
}

// Variables that change how a run behaves, which people forget that they have set.
void add_environment(DoctorReport& report) {
  constexpr const char* kPrefixes[] = {"CARAVAN_", "OMPI_", "OMP_",  "NCCL_",
                                       "PMIX_",    "UCX_",  "SLURM_"};
  for (char** variable = environ; *variable; ++variable) {
    const std::string text = *variable;
    for (const char* prefix : kPrefixes) {
      if (text.compare(0, std::strlen(prefix), prefix) != 0) continue;
      const size_t equals = text.find('=');
      report.facts.push_back({"$" + text.substr(0, equals), text.substr(equals + 1)});
    }
  }
}

void add_root(DoctorReport& report) {
  const bool allowed =
      std::getenv("OMPI_ALLOW_RUN_AS_ROOT") && std::getenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM");
  if (geteuid() != 0 || allowed) return;
  report.findings.push_back(
      {"mpirun refuses to run as root",
       "use another user, or set OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"});
}

}  // namespace

DoctorReport examine_machine() {
  DoctorReport report;
  add_versions(report);
  add_processors(report);
  add_cuda(report);
  add_memory(report);
  add_shared_memory(report);
  add_locked_memory(report);
  add_environment(report);
  add_root(report);
  return report;
}

std::string to_string(const DoctorReport& report) {
  std::string text;
  for (const auto& [name, value] : report.facts) {
    text += absl::StrFormat("%-20s %s\n", name, value);
  }
  for (const Finding& finding : report.findings) {
    text += absl::StrFormat("! %s\n  fix: %s\n", finding.problem, finding.fix);
  }
  return text + (report.findings.empty() ? "nothing is missing\n" : "");
}

}  // namespace caravan
