// Where a run computes: what runtime.device and runtime.dtype ask for, and what this program has.
#pragma once

#include "launch/config.h"

namespace caravan {

// cpu or cuda, never automatic. Throws a config error when the device is not there, or cannot
// compute in the type that is asked for. Plans do not ask: they are for any machine.
DeviceKind choose_device(const Config& config);

}  // namespace caravan
