// All that stands before step 1 on this rank: the plan, the limit that it keeps, the arena and the
// executors. Training, evaluation and benchmarks run on one.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "launch/device.h"
#include "launch/pipeline.h"
#include "parallel/mpi_session.h"
#include "parallel/process_groups.h"
#include "runtime/arena.h"
#include "runtime/executor.h"
#include "runtime/memory_limit.h"
#include "runtime/report.h"

namespace caravan {

struct SessionOptions {
  GraphObserver observer = {};
  RunPurpose purpose = RunPurpose::training;
  // Bytes that the caller will hold beside the arena (batches, files); counted against the limit.
  int64_t host_bytes = 0;
  std::function<void(const Node&, double seconds)> on_node = {};  // see runtime/executor.h
  std::function<void()> before_update = {};
  // See ExecutorOptions; called with the backend that holds the outputs.
  std::function<void(Backend&, const Node&, std::span<const TensorView>)> after_node = {};
  Progress* progress = nullptr;  // outlives the session; null: nobody watches
};

class Session {
 public:
  // Collective over the world. `config` has a vocabulary. Throws a config error, after printing the
  // memory table on rank 0, when the plan exceeds the memory limit; an internal error when ranks
  // planned different programs. Weights are zero: initialise or load them.
  Session(const Config& config, MpiSession& mpi, const SessionOptions& options = {});
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() { backend_->set_health_check({}); }  // it asks communicators, which end first

  const Config& config() const { return config_; }
  const Mesh& mesh() const { return mesh_; }
  const RunPlan& plan() const { return plan_; }
  const Arena& arena() const { return *arena_; }
  const MemoryLimit& limit() const { return limit_; }
  int num_threads() const { return num_threads_; }
  Backend& backend() { return *backend_; }
  Communicator& world() { return *groups_.all; }  // for the main thread
  bool is_first_rank() const { return mesh_.rank == 0; }
  Progress& progress() { return progress_; }
  Executor& executor(std::string_view program);  // internal error when the run has none
  // "NCCL 2.28.9"; "" on the CPU, and of a rank alone.
  const std::string& communication() const { return communication_; }
  // Bytes that this rank holds where the limit is: of the process, or of its device.
  int64_t used_bytes() const;
  int64_t peak_used_bytes() const;

  MemoryReport memory_report() const;
  // What the process should hold at most: arena, libraries and code, host_bytes, checkpoint copy.
  // On a device: the arena there.
  int64_t planned_bytes() const { return memory_report().process_bytes(); }
  // Room for a checkpoint that is being written. Untouched until it is needed.
  std::span<std::byte> checkpoint_copy() { return {copy_.get(), static_cast<size_t>(copy_bytes_)}; }

 private:
  bool is_on_device() const { return device_.kind != DeviceKind::cpu; }
  void find_limit(const MpiSession& mpi);
  int64_t room_on_host(const MpiSession& mpi) const;
  void check_limit() const;
  ExecutorOptions executor_options(const SessionOptions& options, size_t program);

  Config config_;
  RunPurpose purpose_;
  Progress unwatched_;
  Progress& progress_;
  int num_threads_;
  RankDevice device_;
  Mesh mesh_;
  std::unique_ptr<Backend> backend_;
  RunPlan plan_;
  MemoryLimit limit_;
  int64_t host_bytes_;
  int64_t baseline_bytes_ = 0;  // resident before the arena was reserved
  int64_t held_bytes_ = 0;      // of the device, before the arena was reserved
  int64_t copy_bytes_ = 0;      // of the checkpoint copy
  ProcessGroups groups_;        // of the main thread
  std::unique_ptr<Arena> arena_;
  ProcessGroups stream_groups_;  // of the communication stream
  std::string communication_;
  std::unique_ptr<std::byte[]> copy_;
  std::vector<std::unique_ptr<Executor>> executors_;
};

// Threads per rank: as configured, or this machine's processors divided among its ranks.
int threads_per_rank(const Config& config, int ranks_on_node);

}  // namespace caravan
