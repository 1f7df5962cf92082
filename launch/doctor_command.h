// `caravan doctor`: see launch/doctor.h.
#pragma once

namespace CLI {
class App;
}

namespace caravan {

void add_doctor_command(CLI::App& app);

}  // namespace caravan
