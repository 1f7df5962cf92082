#include "launch/device.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "parallel/host_staged_communicator.h"
#include "parallel/nccl_communicator.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"

namespace caravan {

DeviceKind choose_device(const Config& config) {
  const DeviceKind wanted = config.runtime.device;
  if (wanted != DeviceKind::cpu) {
    const std::string problem = examine_cuda().problem;
    if (problem.empty()) return DeviceKind::cuda;
    if (wanted == DeviceKind::cuda) {
      throw config_error("runtime.device is cuda: " + problem + "; or use runtime.device=cpu");
    }
    if (config.runtime.dtype == DType::bf16) {
      throw config_error("runtime.dtype bfloat16 computes on CUDA only: " + problem +
                         "; or use runtime.dtype=float32");
    }
  }
  if (config.runtime.dtype == DType::bf16) {
    throw config_error(
        "runtime.dtype bfloat16 computes on CUDA only; use runtime.dtype=float32, or "
        "runtime.device=cuda");
  }
  return DeviceKind::cpu;
}

DeviceKind plan_device(const Config& config) {
  if (config.runtime.device != DeviceKind::automatic) return config.runtime.device;
  return examine_cuda().problem.empty() ? DeviceKind::cuda : DeviceKind::cpu;
}

WorkspaceRule workspace_rule(DeviceKind kind, int num_threads) {
  if (kind == DeviceKind::cuda) return cuda_workspace_bytes;
  return
      [cpu = std::shared_ptr<Backend>(
           make_cpu_backend({.num_threads = num_threads, .overlap = false}))](
          const Op& op, std::span<const TensorSpec> inputs, std::span<const TensorSpec> outputs) {
        return cpu->workspace_bytes(op, inputs, outputs);
      };
}

RankDevice find_device(const Config& config, MpiSession& mpi) {
  RankDevice device{.kind = choose_device(config)};
  std::string mine = "cpu";
  if (device.kind == DeviceKind::cuda) {
    const std::vector<CudaDevice> devices = examine_cuda().devices;
    device.index = mpi.local_rank() % static_cast<int>(devices.size());
    mine = mpi.host_name() + " " + devices[static_cast<size_t>(device.index)].id;
  }
  const std::vector<std::string> all = gather_strings(mpi.world(), mine);
  if (device.kind == DeviceKind::cpu) return device;
  if (std::ranges::count(all, "cpu") > 0) {
    throw config_error(
        "some machines of this job have a CUDA device and others have none; see caravan doctor on "
        "each, or use runtime.device=cpu");
  }
  device.ranks_on_device = static_cast<int>(std::ranges::count(all, mine));
  for (const std::string& one : all) device.is_shared |= std::ranges::count(all, one) > 1;
  return device;
}

std::unique_ptr<Backend> make_backend(const Config& config, const RankDevice& device,
                                      const Mesh& mesh, int num_threads) {
  if (device.kind == DeviceKind::cpu) {
    return make_cpu_backend({.num_threads = num_threads, .overlap = config.runtime.overlap});
  }
  return make_cuda_backend({.device = device.index,
                            .deterministic = config.runtime.deterministic,
                            .tunes = mesh.size(Axis::tp) == 1,
                            .graphs = config.runtime.cuda_graph,
                            .overlap = config.runtime.overlap});
}

namespace {

// What a call may take to begin; the watchdog looks after what has begun.
double limit_seconds(const Config& config) {
  constexpr double kWithoutWatchdog = 600;
  const auto seconds = static_cast<double>(config.runtime.watchdog_seconds);
  return seconds > 0 ? 2 * seconds : kWithoutWatchdog;
}

}  // namespace

DeviceGroups make_device_groups(const Config& config, const RankDevice& device, Backend& backend,
                                ProcessGroups groups, const Mesh& mesh,
                                std::span<std::byte> memory) {
  if (device.kind == DeviceKind::cpu || mesh.num_ranks() == 1) return {std::move(groups), ""};
  const std::string version = nccl_version();
  const bool uses_nccl = !version.empty() && !device.is_shared;
  std::vector<Communicator*> made;
  for (const Axis axis : kAxes) {
    if (mesh.size(axis) == 1) continue;
    std::unique_ptr<Communicator>& group = groups.by_axis[static_cast<size_t>(axis)];
    if (uses_nccl) {
      group = make_nccl_communicator(std::move(group),
                                     {.stream = backend.stream_handle(Stream::communication),
                                      .limit_seconds = limit_seconds(config),
                                      .memory = memory.data(),
                                      .memory_bytes = std::ssize(memory)});
    } else {
      group = make_host_staged_communicator(std::move(group), backend);
    }
    made.push_back(group.get());
  }
  if (!uses_nccl) {
    const char* why = device.is_shared ? "several ranks share a GPU" : "there is no NCCL";
    return {std::move(groups), absl::StrFormat("through the host (%s)", why)};
  }
  backend.set_health_check([made] {
    for (Communicator* one : made) one->check_peers();
  });
  return {std::move(groups), "NCCL " + version};
}

}  // namespace caravan
