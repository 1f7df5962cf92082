// A communicator for device memory seen as one for host memory: buffers travel to the device before
// each call and back after it. For checks that know no devices.
#pragma once

#include <memory>
#include <string_view>

#include "runtime/backend.h"
#include "runtime/communicator.h"
#include "tests/parallel/communicator_checks.h"

namespace caravan {

// `backend` outlives it; `inner` puts its work on the backend's communication stream.
std::unique_ptr<Communicator> make_device_buffers(std::unique_ptr<Communicator> inner,
                                                  Backend& backend);

// All but the one that shares a communicator's backend between threads: a backend has one.
inline bool runs_on_one_thread(const CommunicatorCheck& check) {
  return std::string_view(check.name) != "two_threads";
}

}  // namespace caravan
