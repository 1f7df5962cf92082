// Runs under mpirun: the checks of communicator_checks.h over MPI, or one way of ending badly. N:
// ranks.
//   mpi_program checks N   all checks on the world, with messages and pieces cut small, on a mesh
//   mpi_program abort N    the last rank aborts with exit code 5 while the others wait for it
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>

#include "parallel/heartbeat.h"
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

// Every rank greets rank 0, which answers: nobody waits inside a call.
void check_heartbeat() {
  const auto heartbeat = make_mpi_heartbeat();
  const int rank = heartbeat->rank(), size = heartbeat->size();
  const auto wait_for = [&] {
    for (;;) {
      if (const auto received = heartbeat->receive()) return *received;
    }
  };
  Beat beat;
  beat.position.step = 100 + rank;
  beat.life = Beat::Life::leaving;
  if (rank != 0) {
    check(!heartbeat->receive(), "a beat that nobody sent");
    check(heartbeat->send(beat, 0), "the first beat was dropped");
    const Heartbeat::Received answer = wait_for();
    check(answer.from == 0 && answer.beat.position.step == 100 + rank, "rank 0 answered wrongly");
  }
  for (int i = 1; rank == 0 && i < size; ++i) {
    const Heartbeat::Received greeting = wait_for();
    check(greeting.beat.position.step == 100 + greeting.from, "a beat came from another rank");
    check(greeting.beat.life == Beat::Life::leaving, "a beat lost its life");
    check(heartbeat->send(greeting.beat, greeting.from), "the answer was dropped");
  }
  while (!heartbeat->flush()) continue;
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
  check_heartbeat();
  world.barrier();  // all are done with their beats
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
