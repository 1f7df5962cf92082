// `caravan train`: trains, resumes, or says that the run is done.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/backend.h"

namespace CLI {
class App;
}

namespace caravan {

using NodeHook = std::function<void(Backend&, const Node&, std::span<const TensorView>)>;

struct TrainRequest {
  std::string config_path;
  std::vector<std::string> overrides = {};
  std::string dump_pass = {};
  bool allow_config_change = false;
  std::string fault = {};
  NodeHook after_node = {};  // for tests; see SessionOptions. A fault takes its place.
};

// Initialises and finalises MPI when there are other ranks; an Error is thrown as it came, or, once
// ranks have a plan in common, ends the job.
void train(const TrainRequest& request);

// Adds `train` to `app`; parsing runs it.
void add_train_command(CLI::App& app);

}  // namespace caravan
