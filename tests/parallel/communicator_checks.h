// What every Communicator must do, as checks that run on each rank of any implementation and size:
// in communicator_test.cpp on threads, in mpi_program.cpp under mpirun.
#pragma once

#include <span>

#include "runtime/communicator.h"

namespace caravan {

struct CommunicatorCheck {
  const char* name;
  void (*run)(Communicator&);  // collective; throws Error when a result is wrong
};

std::span<const CommunicatorCheck> communicator_checks();

}  // namespace caravan
