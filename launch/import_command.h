// `caravan import`: a Hugging Face folder becomes a checkpoint. Alone or under mpirun or srun,
// where every process reads and writes its share.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace caravan {

// Adds `import` to `app`; parsing runs it.
void add_import_command(CLI::App& app);

struct ImportRequest {
  std::string folder;
  std::string output;          // of the checkpoint; must not exist
  std::string reference = {};  // .npz with input_ids and logits, made elsewhere; "": none
  double tolerance = 1e-3;     // largest difference of a logit
  std::vector<std::string> ignored_keys = {};  // of config.json
  std::vector<std::string> overrides = {};     // of parallel and runtime
};
// Collective over the processes of the job. Prints what it did on rank 0.
void import_model(const ImportRequest& request);

}  // namespace caravan
