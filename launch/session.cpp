#include "launch/session.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "launch/compare_plans.h"
#include "launch/device.h"
#include "launch/machine.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"

namespace caravan {
namespace {

// Those of axes that have more than one rank.
AxisCommunicators communicators(ProcessGroups& groups, const Mesh& mesh) {
  AxisCommunicators by_axis{};
  for (const Axis axis : kAxes) {
    if (mesh.size(axis) > 1) by_axis[static_cast<size_t>(axis)] = &groups.axis(axis);
  }
  return by_axis;
}

}  // namespace

int threads_per_rank(const Config& config, int ranks_on_node) {
  if (config.runtime.threads) return static_cast<int>(*config.runtime.threads);
  return std::max(1, usable_processors() / ranks_on_node);
}

Session::Session(const Config& config, MpiSession& mpi, const SessionOptions& options)
    : config_(config),
      purpose_(options.purpose),
      progress_(options.progress != nullptr ? *options.progress : unwatched_),
      num_threads_(threads_per_rank(config, mpi.local_size())),
      device_(find_device(config, mpi)),
      mesh_(make_mesh(config, mpi.world().size()).with_rank(mpi.world().rank())),
      backend_(make_backend(config, device_, mesh_, num_threads_)),
      plan_(plan_run(config, mesh_.with_rank(0), workspace_rule(device_.kind, num_threads_),
                     options.observer, options.purpose)),
      host_bytes_(options.host_bytes),
      groups_(make_groups(mpi.world(), mesh_)) {
  groups_.all = make_watched_communicator(std::move(groups_.all), progress_);
  compare_plans(world(), plan_.programs);
  progress_.enter(Phase::starting);
  baseline_bytes_ = resident_bytes();
  find_limit(mpi);
  copy_bytes_ = checkpoint_copy_bytes(config_, plan_, mesh_, room_on_host(mpi));
  check_limit();
  arena_ = std::make_unique<Arena>(*backend_, plan_.layout, plan_.transient_bytes());
  copy_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(copy_bytes_));
  DeviceGroups made = make_device_groups(config_, device_, *backend_,
                                         make_groups(mpi.world(), mesh_), mesh_, arena_->memory());
  stream_groups_ = std::move(made.groups);
  communication_ = std::move(made.description);
  for (size_t i = 0; i < plan_.programs.size(); ++i) {
    executors_.push_back(std::make_unique<Executor>(plan_.programs[i], *backend_, *arena_, mesh_,
                                                    communicators(stream_groups_, mesh_),
                                                    executor_options(options, i)));
  }
}

// Of a device after the backend was made: what the driver and the libraries hold is not free.
void Session::find_limit(const MpiSession& mpi) {
  MemoryLimitRequest request{.configured_bytes = config_.runtime.memory_limit,
                             .ranks_on_node = mpi.local_size(),
                             .system = read_system_memory()};
  if (is_on_device()) {
    groups_.all->barrier();  // all that share the device have started it
    const CudaMemory memory = cuda_memory(device_.index);
    groups_.all->barrier();  // and none has taken its arena
    held_bytes_ = memory.total_bytes - memory.free_bytes;
    request.ranks_on_node = device_.ranks_on_device;
    request.device_free_bytes = memory.free_bytes;
  }
  limit_ = memory_limit(request);
}

int64_t Session::room_on_host(const MpiSession& mpi) const {
  if (!is_on_device()) return limit_.bytes - memory_report().process_bytes();
  const MemoryLimit host = memory_limit(
      {.configured_bytes = {}, .ranks_on_node = mpi.local_size(), .system = read_system_memory()});
  return host.bytes - memory_report().host_bytes();
}

int64_t Session::used_bytes() const { return is_on_device() ? arena_->bytes() : resident_bytes(); }

int64_t Session::peak_used_bytes() const {
  if (!is_on_device()) return peak_resident_bytes();
  const CudaMemory memory = cuda_memory(device_.index);
  return memory.total_bytes - memory.free_bytes;
}

ExecutorOptions Session::executor_options(const SessionOptions& options, size_t program) {
  ExecutorOptions result{.on_node = options.on_node,
                         .before_update = options.before_update,
                         .progress = &progress_,
                         .program_index = static_cast<int>(program)};
  if (options.after_node) {
    result.after_node = [this, hook = options.after_node](const Node& node,
                                                          std::span<const TensorView> outputs) {
      hook(*backend_, node, outputs);
    };
  }
  return result;
}

Executor& Session::executor(std::string_view program) {
  const auto found = std::ranges::find_if(
      executors_, [&](const auto& executor) { return executor->program().name == program; });
  check(found != executors_.end(), "the run has no program '%s'", program);
  return **found;
}

MemoryReport Session::memory_report() const {
  ReportOptions options{
      .limit = limit_,
      .host = {{"libraries and code", baseline_bytes_},
               {purpose_ == RunPurpose::logits ? "files and logits" : "batches read ahead",
                host_bytes_},
               {"checkpoint copy", copy_bytes_}},
      .is_on_device = is_on_device()};
  if (is_on_device()) options.held = {{"CUDA and others", held_bytes_}};
  return caravan::memory_report(plan_.layout, plan_.programs, options);
}

void Session::check_limit() const {
  if (planned_bytes() <= limit_.bytes) return;
  const MemoryReport report = memory_report();
  if (is_first_rank()) absl::FPrintF(stderr, "%s", to_string(report));
  caravan::check_limit(report);
}

}  // namespace caravan
