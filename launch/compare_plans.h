// Do all ranks run the same plan? A difference would end in a hang or in wrong sums; found before
// the first collective of a program it is still a message, and names the op.
#pragma once

#include <span>

#include "runtime/communicator.h"
#include "runtime/program.h"

namespace caravan {

// Collective over `world`, with this rank's programs. Throws the same internal error on all ranks
// when any of them has other programs than rank 0: the first op that differs, as both have it.
void compare_plans(Communicator& world, std::span<const Program> programs);

}  // namespace caravan
