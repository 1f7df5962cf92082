// Runs under mpirun: the checks of communicator_checks.h over MPI, or one way of ending badly. N:
// ranks.
//   mpi_program checks N   all checks on the world, with messages and pieces cut small, on a mesh
//   mpi_program abort N    the last rank aborts with exit code 5 while the others wait for it
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "parallel/mpi_communicator.h"
#include "parallel/mpi_session.h"
#include "parallel/process_groups.h"
#include "tests/parallel/communicator_checks.h"

namespace caravan {
namespace {

void run_checks(Communicator& group, const char* what) {
  for (const CommunicatorCheck& item : communicator_checks()) {
    if (group.rank() == 0) std::printf("%s, %d ranks: %s\n", what, group.size(), item.name);
    std::fflush(stdout);
    item.run(group);
  }
}

// Everything again, in many pieces and with an odd last one.
void run_cut_checks() {
  const auto cut = make_mpi_communicator({.max_message_bytes = 4099, .piece_bytes = 1024});
  run_checks(*cut, "cut small");
}

void check_mesh(Communicator& world) {
  const Mesh mesh{{world.size() / 2, 1, 2}, world.rank()};
  ProcessGroups main = make_groups(world, mesh);
  ProcessGroups stream = make_groups(world, mesh);
  for (ProcessGroups* groups : {&main, &stream}) {
    check(groups->axis(Axis::dp).size() == world.size() / 2, "size of dp");
    check(groups->axis(Axis::dp).rank() == world.rank() / 2, "rank in dp");
    check(groups->axis(Axis::tp).size() == 2, "size of tp");
    check(groups->axis(Axis::tp).rank() == world.rank() % 2, "rank in tp");
    communicator_checks()[0].run(groups->axis(Axis::dp));
    communicator_checks()[0].run(groups->axis(Axis::tp));
    communicator_checks()[0].run(*groups->all);
  }
}

void check_session(MpiSession& session, int num_ranks) {
  check(session.world().size() == num_ranks, "a world of %d, not of %d", session.world().size(),
        num_ranks);
  check(session.local_size() == num_ranks && session.local_rank() == session.world().rank(),
        "rank %d of %d on this machine", session.local_rank(), session.local_size());
}

void run(MpiSession& session, std::string_view mode, int num_ranks) {
  check_session(session, num_ranks);
  Communicator& world = session.world();
  if (mode == "abort") {
    if (world.rank() == world.size() - 1) session.abort(ExitCode::diverged);
    world.barrier();
    check(false, "the barrier let rank %d pass without the rank that aborted", world.rank());
  }
  check(mode == "checks", "unknown mode");
  run_checks(world, "world");
  run_cut_checks();
  check_mesh(world);
  session.finish();
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  caravan::MpiSession session;
  try {
    caravan::check(argc == 3, "usage: mpi_program checks|abort NUM_RANKS");
    caravan::run(session, argv[1], std::atoi(argv[2]));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", session.world().rank(), error.what());
    session.abort(caravan::ExitCode::internal);
  }
}
