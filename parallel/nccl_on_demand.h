// NCCL, opened when a communicator is wanted (runtime/cuda/on_demand.h).
#pragma once

#include <string>

namespace caravan {

std::string open_nccl();  // what is wrong, "" when nothing is; may be called again

}  // namespace caravan
