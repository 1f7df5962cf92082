#include "launch/train_command.h"

#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launch/fail_run.h"
#include "launch/plan_command.h"
#include "launch/signals.h"
#include "launch/trainer.h"

namespace caravan {
namespace {

struct TrainRequest {
  std::string config_path;
  std::vector<std::string> overrides;
  std::string dump_pass;
  bool allow_config_change = false;
};

void train(const TrainRequest& request) {
  SignalWatch signals;
  MpiSession mpi;
  const Config config = load_config(request.config_path, request.overrides);
  Progress progress;
  TrainerOptions options{.allow_config_change = request.allow_config_change, .progress = &progress};
  if (!request.dump_pass.empty() && mpi.world().rank() == 0) {
    options.observer = graph_dumper("update", request.dump_pass, std::cout);
  }
  std::optional<Trainer> trainer;
  bool is_done = false;
  try {
    trainer.emplace(config, mpi, signals, options);
    is_done = trainer->run();
  } catch (...) {
    // Before all ranks agreed on the plan, the folder may be that of another job.
    if (progress.read().phase == Phase::planning) throw;
    fail_run({config.output_dir, mpi, progress});
  }
  trainer.reset();
  mpi.finish();
  if (!is_done) throw Error(ExitCode::interrupted, "saved and stopped; start again to go on");
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto request = std::make_shared<TrainRequest>();
  CLI::App* command = app.add_subcommand(
      "train", "train, or go on where the run folder stands; alone, under mpirun or under srun");
  command->add_option("config", request->config_path, "YAML file")->required();
  command->add_option("overrides", request->overrides, "section.key=value");
  command->add_option("--dump-graph", request->dump_pass,
                      "print the update program's graph after a pass, then train");
  command->add_flag("--allow-config-change", request->allow_config_change,
                    "resume although data, seed, batch or optimizer changed");
  command->callback([request] { train(*request); });
}

}  // namespace caravan
