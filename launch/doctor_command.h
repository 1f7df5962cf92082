// `caravan doctor`: see launch/doctor.h.
#pragma once

#include <CLI/CLI.hpp>

namespace caravan {

void add_doctor_command(CLI::App& app);

}  // namespace caravan
