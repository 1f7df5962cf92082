// The device that the tests of this folder run on: a GPU, or the emulator (tests/cuda_emulator),
// depending on what they are linked with.
#pragma once

#include "runtime/cuda/cuda.h"

namespace caravan {

// Made when first asked for; deterministic, graphs on.
Backend& device_under_test();
// Before main returns: the device's library, or the emulator's threads' memory, goes soon after.
void end_device_under_test();

}  // namespace caravan
