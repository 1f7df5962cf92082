// What a scheduler or a person asks of a running job: USR1 save a checkpoint and stop, USR2 save
// and go on. The handlers only set flags; a second USR1 ends the process at once, which harms no
// checkpoint. (mpirun passes both on immediately; Slurm sends them with --signal.)
#pragma once

#include "runtime/communicator.h"

namespace caravan {

enum class SignalRequest : uint8_t { none = 0, save = 1, save_and_stop = 2 };

// From now on the two signals are requests. Call once, before other threads start.
void install_signal_handlers();

// The strongest request that any rank has got since the last call; the same on all ranks.
// Collective over the world.
SignalRequest take_signal_request(Communicator& world);

}  // namespace caravan
