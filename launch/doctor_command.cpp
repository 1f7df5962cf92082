#include "launch/doctor_command.h"

#include <CLI/CLI.hpp>
#include "absl/strings/str_format.h"
#include "launch/doctor.h"

namespace caravan {

void add_doctor_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("doctor", "versions, limits, what is missing");
  command->callback([] { absl::PrintF("%s", to_string(examine_machine())); });
}

}  // namespace caravan
