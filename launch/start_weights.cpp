#include "launch/start_weights.h"

#include <filesystem>

#include "absl/strings/str_format.h"
#include "data/durable_file.h"
#include "data/tokenizer.h"
#include "launch/model_source.h"
#include "launch/run_state.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// A data folder has its tokenizer in it, a token file beside it.
std::string tokenizer_folder(const Config& config) {
  const fs::path data = config.data.train.front().path;
  return fs::is_directory(data) ? data.string() : data.parent_path().string();
}

}  // namespace

void load_start_weights(Session& session, Console* console) {
  const Config& config = session.config();
  if (config.model.init_from.empty()) {
    initialize_parameters(session.plan(), session.mesh(), session.backend(), session.arena(),
                          static_cast<uint64_t>(config.train.seed), session.num_threads(),
                          session.progress());
    return;
  }
  const ModelSource source(config.model.init_from);
  std::vector<std::string> notes;
  const std::unique_ptr<WeightSource> weights =
      source.open_weights(config.model, session.is_first_rank(), notes);
  if (console) console->line("weights from " + source.description());
  for (const std::string& note : notes) {
    if (console) console->line("note: " + note);
  }
  load_weights(session.plan(), session.mesh(), session.backend(), session.arena(), *weights,
               session.progress());
}

std::vector<Asset> start_assets(const Config& config, const std::string& resumed_path) {
  if (!resumed_path.empty()) return ModelSource(resumed_path).assets();
  if (!config.model.init_from.empty()) return ModelSource(config.model.init_from).assets();
  return list_assets(tokenizer_folder(config), AssetKind::tokenizer);
}

std::string tokenizer_warning(const std::string& data_hash, const std::vector<Asset>& assets) {
  constexpr size_t kMaxBytes = size_t{256} << 20;
  std::string path;
  for (const Asset& asset : assets) {
    if (asset.name != "tokenizer.json" && asset.name != "tokenizer.model") continue;
    path = asset.path;
    const std::string contents = read_file(path, kMaxBytes, ExitCode::checkpoint);
    if (tokenizer_hash(contents) == data_hash) return "";
  }
  if (path.empty() || data_hash.empty()) return "";
  return absl::StrFormat(
      "data.train was made with another tokenizer than the model's (%s), so its ids mean other "
      "words; build the data again with --tokenizer",
      path);
}

}  // namespace caravan
