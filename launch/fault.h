// Failures on request, to see what a cluster does about them: `caravan train --fault
// KIND@STEP:RANK`. Off unless asked for, and then it costs nothing.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "runtime/backend.h"
#include "runtime/progress.h"

namespace caravan {

struct FaultRequest {
  enum class Kind : uint8_t {
    stop,          // SIGSTOP to itself
    hang,          // an endless loop before the next collective
    kill,          // SIGKILL to itself
    error,         // throws an internal error
    nan,           // the sum of losses becomes NaN
    nan_gradient,  // an element of a gradient becomes NaN
  };
  Kind kind = Kind::stop;
  int64_t step = 1;
  int rank = 0;
};

// "stop@17:2". A config error for anything else, and for a rank that the job has not got.
FaultRequest parse_fault(std::string_view text, int num_ranks);

// Fails once, in the request's step and its first micro-batch: for SessionOptions::after_node of
// that rank. `progress` outlives it.
std::function<void(Backend&, const Node&, std::span<const TensorView>)> make_fault(
    const FaultRequest& request, const Progress& progress);

}  // namespace caravan
