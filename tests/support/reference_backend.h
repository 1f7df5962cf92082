// A backend that computes with the specification of the ops (runtime/cpu/reference.h), in f32 and
// in bf16. Memory, collectives and slices are the CPU backend's. Slow: for small graphs in tests.
#pragma once

#include "runtime/backend.h"

namespace caravan {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace caravan
