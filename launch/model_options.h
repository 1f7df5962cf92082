// From a configuration to how its model is built: see ModelOptions in models/model.h.
#pragma once

#include "launch/config.h"
#include "models/model.h"
#include "runtime/mesh.h"

namespace caravan {

// `training`: of a program that trains; evaluation has routers without bias and balance losses. The
// rows of experts are the same in both.
ModelOptions model_options(const Config& config, const Mesh& mesh, bool training);

}  // namespace caravan
