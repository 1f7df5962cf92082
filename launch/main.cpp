// caravan: the program. What a command does is in launch/<command>_command.cpp.
#include <CLI/CLI.hpp>

#include "absl/strings/str_format.h"
#include "launch/ckpt_command.h"
#include "launch/command_line.h"
#include "launch/config.h"
#include "launch/data_command.h"
#include "launch/doctor_command.h"
#include "launch/export_command.h"
#include "launch/import_command.h"
#include "launch/plan_command.h"
#include "launch/supervise_command.h"
#include "launch/train_command.h"

namespace {

constexpr char kFooter[] = R"(examples:
  caravan train configs/quickstart.yaml
  caravan train configs/quickstart.yaml train.max_steps=100 optimizer.learning_rate=3e-4
  mpirun -n 2 caravan train configs/quickstart.yaml
  caravan supervise -- mpirun -n 2 caravan train configs/quickstart.yaml
  caravan plan configs/quickstart.yaml

exit codes: 0 done, 1 internal, 2 configuration or usage, 3 data, 4 checkpoint, 5 diverged,
            6 another process was lost, 75 interrupted after a checkpoint (start it again))";

void print_keys() {
  absl::PrintF("%s", caravan::config_reference());
  throw CLI::Success();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains large language models on many machines, from one YAML file.", "caravan");
  app.set_version_flag("--version", "caravan " CARAVAN_VERSION);
  app.add_flag_callback("--keys", print_keys, "every key of a configuration, and leave");
  app.require_subcommand(1);
  app.footer(kFooter);
  caravan::add_train_command(app);
  caravan::add_supervise_command(app);
  caravan::add_plan_command(app);
  caravan::add_data_command(app);
  caravan::add_import_command(app);
  caravan::add_export_command(app);
  caravan::add_ckpt_command(app);
  caravan::add_doctor_command(app);
  return caravan::run_command_line(app, argc, argv);
}
