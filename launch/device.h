// Where a run computes: what runtime.device and runtime.dtype ask for, and what this program and
// machine have; the backend for it, and how its ranks communicate.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "launch/config.h"
#include "parallel/mpi_session.h"
#include "parallel/process_groups.h"
#include "runtime/backend.h"

namespace caravan {

// cpu or cuda, never automatic. Throws a config error when the device is not there, or cannot
// compute in the type that is asked for. Plans do not ask: they are for any machine.
DeviceKind choose_device(const Config& config);
// The same for a plan, which needs no device: automatic is what this machine would take.
DeviceKind plan_device(const Config& config);

// Scratch bytes of an op and its planned shapes (Backend::workspace_bytes), without a device.
using WorkspaceRule = std::function<int64_t(const Op& op, std::span<const TensorSpec> inputs,
                                            std::span<const TensorSpec> outputs)>;
WorkspaceRule workspace_rule(DeviceKind kind, int num_threads);

// The device of this rank. Threads that call CUDA themselves make it current first; the backend
// does that in its own calls.
struct RankDevice {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;            // of a CUDA device of this machine
  int ranks_on_device = 1;  // how many ranks of the job compute on it
  bool is_shared = false;   // some device of the job has several ranks
};
// Collective over the world. Devices are dealt out by local rank.
RankDevice find_device(const Config& config, MpiSession& mpi);
std::unique_ptr<Backend> make_backend(const Config& config, const RankDevice& device,
                                      const Mesh& mesh, int num_threads);

// Communicators of the communication stream, made from `groups` on the host; and in words, such as
// "NCCL 2.28.9". `memory`: what they will mostly move, see NcclOptions.
struct DeviceGroups {
  ProcessGroups groups;
  std::string description;
};
DeviceGroups make_device_groups(const Config& config, const RankDevice& device, Backend& backend,
                                ProcessGroups groups, const Mesh& mesh,
                                std::span<std::byte> memory);

}  // namespace caravan
