// The table of every key of a configuration, by section: see launch/config_schema.cpp.
#pragma once

#include "launch/config.h"
#include "launch/schema.h"

namespace caravan {

Keys<Config> config_keys();
Keys<ModelConfig> model_keys();  // of its section `model`

}  // namespace caravan
