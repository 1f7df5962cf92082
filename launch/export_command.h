// `caravan export`: a checkpoint becomes a folder that other programs load, with the proof that it
// says the same. Alone or under mpirun or srun, whose processes share the work.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace caravan {

// Adds `export` to `app`; parsing runs it.
void add_export_command(CLI::App& app);

struct ExportRequest {
  std::string checkpoint;  // or a run: its newest
  std::string output;      // must not exist
  std::string format = "hf";
  std::string dtype = "auto";  // float32, bfloat16; auto: as it was imported, else float32
  std::string max_shard_size = "5GiB";
  std::string tokenizer = {};               // a file or folder; "": that of the checkpoint
  int64_t parity_tokens = 64;               // that logits are compared on; 0: none are
  std::vector<std::string> overrides = {};  // of parallel and runtime
};
// Collective over the processes of the job. The folder appears whole or not at all.
void export_model(const ExportRequest& request);

}  // namespace caravan
