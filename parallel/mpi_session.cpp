// Starts and ends MPI. See mpi_communicator.cpp for what is said in between.
#include "parallel/mpi_session.h"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "parallel/mpi_communicator.h"

namespace caravan {
namespace {

int number(const EnvironmentLookup& environment, const char* name) {
  const char* text = environment(name);
  return text == nullptr ? 0 : std::atoi(text);
}

void start_mpi() {
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (provided < MPI_THREAD_MULTIPLE) {
    throw config_error(
        "this MPI was built without MPI_THREAD_MULTIPLE, which the communication thread needs: "
        "use an Open MPI that has it, such as Debian's libopenmpi3");
  }
}

// A library other than the launcher's own finds no peers and believes to be alone.
void check_world_size(int found) {
  const int expected = number(std::getenv, "OMPI_COMM_WORLD_SIZE");
  if (expected <= 1 || found == expected) return;
  throw config_error(absl::StrFormat(
      "mpirun started %d processes but MPI sees %d: mpirun belongs to another MPI than the one "
      "that caravan was built with; use that one's mpirun",
      expected, found));
}

}  // namespace

bool launched_by_mpi(const EnvironmentLookup& environment) {
  for (const char* name : std::array{"OMPI_COMM_WORLD_SIZE", "PMIX_RANK"}) {
    if (environment(name) != nullptr) return true;
  }
  // The batch script of a job has SLURM_NTASKS as well; only tasks of srun have the step's number.
  const int num_tasks = number(environment, "SLURM_STEP_NUM_TASKS");
  if (num_tasks > 1) {
    throw config_error(absl::StrFormat(
        "srun started %d processes that cannot find each other: start them with srun --mpi=pmix",
        num_tasks));
  }
  if (const int num_processes = number(environment, "PMI_SIZE"); num_processes > 1) {
    throw config_error(absl::StrFormat(
        "%d processes were started by the launcher of another MPI: use Open MPI's mpirun or "
        "srun --mpi=pmix",
        num_processes));
  }
  return false;
}

MpiSession::MpiSession() {
  if (!launched_by_mpi(std::getenv)) {
    world_ = make_self_communicator();
    return;
  }
  start_mpi();
  started_ = true;
  world_ = make_mpi_communicator();
  check_world_size(world_->size());
  MPI_Comm machine = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine),
            "MPI_Comm_split_type");
  MPI_Comm_rank(machine, &local_rank_);
  MPI_Comm_size(machine, &local_size_);
  MPI_Comm_free(&machine);
}

std::string MpiSession::host_name() const {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown host";
  return name.data();
}

void MpiSession::finish() {
  world_ = make_self_communicator();
  if (!started_) return;
  started_ = false;
  check_mpi(MPI_Finalize(), "MPI_Finalize");
}

void MpiSession::abort(ExitCode code) {
  std::fflush(nullptr);
  if (started_) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

}  // namespace caravan
