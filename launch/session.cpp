#include "launch/session.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "launch/compare_plans.h"
#include "launch/device.h"
#include "launch/machine.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
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

std::unique_ptr<Backend> make_backend(const Config& config, int num_threads) {
  check(choose_device(config) == DeviceKind::cpu, "there is no other backend");
  return make_cpu_backend({.num_threads = num_threads, .overlap = config.runtime.overlap});
}

}  // namespace

int threads_per_rank(const Config& config, int ranks_on_node) {
  if (config.runtime.threads) return static_cast<int>(*config.runtime.threads);
  return std::max(1, usable_processors() / ranks_on_node);
}

Session::Session(const Config& config, MpiSession& mpi, const SessionOptions& options)
    : config_(config),
      progress_(options.progress != nullptr ? *options.progress : unwatched_),
      num_threads_(threads_per_rank(config, mpi.local_size())),
      backend_(make_backend(config, num_threads_)),
      mesh_(make_mesh(config, mpi.world().size()).with_rank(mpi.world().rank())),
      plan_(plan_run(config, mesh_.with_rank(0), *backend_, options.observer)),
      limit_(memory_limit({.configured_bytes = config.runtime.memory_limit,
                           .ranks_on_node = mpi.local_size(),
                           .system = read_system_memory()})),
      host_bytes_(options.host_bytes),
      groups_(make_groups(mpi.world(), mesh_)),
      stream_groups_(make_groups(mpi.world(), mesh_)) {
  groups_.all = make_watched_communicator(std::move(groups_.all), progress_);
  compare_plans(world(), plan_.programs);
  progress_.enter(Phase::starting);
  baseline_bytes_ = resident_bytes();
  const int64_t room = limit_.bytes - memory_report().process_bytes();
  copy_bytes_ = checkpoint_copy_bytes(config_, plan_, mesh_, room);
  check_limit();
  arena_ = std::make_unique<Arena>(*backend_, plan_.layout, plan_.transient_bytes());
  copy_ = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(copy_bytes_));
  for (size_t i = 0; i < plan_.programs.size(); ++i) {
    executors_.push_back(std::make_unique<Executor>(plan_.programs[i], *backend_, *arena_, mesh_,
                                                    communicators(stream_groups_, mesh_),
                                                    executor_options(options, i)));
  }
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
  return caravan::memory_report(plan_.layout, plan_.programs,
                                {.limit = limit_,
                                 .host = {{"libraries and code", baseline_bytes_},
                                          {"batches read ahead", host_bytes_},
                                          {"checkpoint copy", copy_bytes_}}});
}

void Session::check_limit() const {
  if (planned_bytes() <= limit_.bytes) return;
  const MemoryReport report = memory_report();
  if (is_first_rank()) absl::FPrintF(stderr, "%s", to_string(report));
  caravan::check_limit(report);
}

}  // namespace caravan
