// A picture of a plan: offsets in the transient region over the steps of the schedule, one
// rectangle per block, coloured by category, beside the persistent region. A self-contained SVG
// file.
#pragma once

#include <string>

#include "runtime/program.h"

namespace caravan {

// `title` stands above the picture: the model and the mesh. The text of the file.
std::string plan_svg(const Program& program, const PersistentLayout& layout,
                     const std::string& title);

}  // namespace caravan
