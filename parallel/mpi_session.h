// MPI's life in this process: whether to start it, who we are on this machine, how to end.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/communicator.h"
#include "runtime/error.h"

namespace caravan {

// Looks up an environment variable; nullptr when it is not set.
using EnvironmentLookup = std::function<const char*(const char*)>;

// Was this process started by mpirun or `srun --mpi=pmix`? config_error when several processes were
// started in a way that leaves them strangers to each other, which would train the model N times.
bool launched_by_mpi(const EnvironmentLookup& environment);

// Created first and destroyed last in main, by the main thread. A plain start never touches MPI:
// then the world is a group of one.
class MpiSession {
 public:
  MpiSession();  // config_error: started wrongly, or an MPI without MPI_THREAD_MULTIPLE
  ~MpiSession() = default;
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  Communicator& world() { return *world_; }
  int local_rank() const { return local_rank_; }  // among the processes on this machine
  int local_size() const { return local_size_; }
  std::string host_name() const;

  // The normal end: every rank calls it once, with nothing left to communicate. Without it the
  // process ends without MPI_Finalize (which would wait for peers), and mpirun ends the others.
  void finish();
  // The end after an error on this rank: all ranks are gone within seconds, and mpirun's exit code
  // is `code`. Runs no destructors. Any thread.
  [[noreturn]] void abort(ExitCode code);

 private:
  bool started_ = false;
  int local_rank_ = 0;
  int local_size_ = 1;
  std::unique_ptr<Communicator> world_;
};

}  // namespace caravan
