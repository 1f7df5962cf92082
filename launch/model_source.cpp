#include "launch/model_source.h"

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "checkpoint/directory.h"
#include "checkpoint/hf_weights.h"
#include "checkpoint/posix_file.h"
#include "checkpoint/reader.h"
#include "data/folder_path.h"
#include "launch/config.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

// The folder of a checkpoint, or of the newest one of a run; "" when it is neither.
std::string find_checkpoint(const std::string& path) {
  if (fs::exists(fs::path(path) / kManifestName)) return path;
  return find_latest((fs::path(path) / "checkpoints").string()).path;
}

// An imported checkpoint says its model alone, one of a run all of its configuration.
ModelConfig model_of(const CheckpointHeader& header, const std::string& path) {
  const auto find = [&](const char* key) -> const std::string* {
    const auto found = header.texts.find(key);
    return found == header.texts.end() ? nullptr : &found->second;
  };
  try {
    if (const std::string* model = find(kModelText)) return parse_model(*model, "its model");
    if (const std::string* config = find("config")) {
      return parse_config(*config, "its configuration").model;
    }
  } catch (const Error& error) {
    throw checkpoint_error(absl::StrFormat("%s/%s: %s", path, kManifestName, error.what()));
  }
  throw checkpoint_error(
      absl::StrFormat("%s/%s: does not say what model it is of", path, kManifestName));
}

// `given`, but for what has no tensors, which is as in `source`.
ModelConfig with_shapes_of(const ModelConfig& given, const ModelConfig& source) {
  ModelConfig model = given;
  model.init_from = source.init_from;
  model.max_position_embeddings = source.max_position_embeddings;
  model.initializer_range = source.initializer_range;
  model.rms_norm_eps = source.rms_norm_eps;
  model.rope_theta = source.rope_theta;
  model.rope_scaling = source.rope_scaling;
  model.no_rope_layers = source.no_rope_layers;
  model.no_rope_layer_interval = source.no_rope_layer_interval;
  model.attention_chunk_size = source.attention_chunk_size;
  model.layer_types = source.layer_types;
  model.use_qk_norm = source.use_qk_norm;
  model.attn_temperature_tuning = source.attn_temperature_tuning;
  model.floor_scale = source.floor_scale;
  model.attn_scale = source.attn_scale;
  model.num_experts_per_tok = source.num_experts_per_tok;
  return canonical(model);
}

}  // namespace

ModelSource::ModelSource(const std::string& path, std::span<const std::string> ignored_keys)
    : kind_(Kind::checkpoint), path_(path) {
  if (!fs::is_directory(path)) {
    throw checkpoint_error(path +
                           ": no such folder; give a Hugging Face folder (config.json and "
                           "*.safetensors), a checkpoint or a run");
  }
  const std::string checkpoint = find_checkpoint(path);
  if (checkpoint.empty()) {
    kind_ = Kind::hugging_face;
    read_folder(ignored_keys);
  } else {
    path_ = checkpoint;
    read_checkpoint();
  }
}

void ModelSource::read_checkpoint() {
  manifest_ = read_committed(path_);
  if (const std::string config = asset_path(*manifest_, path_, kHfConfigName); !config.empty()) {
    // Of its keys only the ids count: what the model is stands in the manifest.
    hf_ = read_hf_ids(read_small_file(config, kMaxHfConfigBytes), config);
  }
  hf_.model = canonical(model_of(manifest_->header, path_));
}

void ModelSource::read_folder(std::span<const std::string> ignored_keys) {
  const std::optional<std::string> config = find_inside(path_, kHfConfigName);
  if (!config && fs::is_directory(fs::path(path_) / "snapshots")) {
    throw checkpoint_error(path_ + ": is a cache of Hugging Face; give a folder in its snapshots/");
  }
  if (!config) {
    throw checkpoint_error(absl::StrFormat(
        "%s: has neither %s nor %s, so it is no Hugging Face folder, no checkpoint and no run with "
        "one",
        path_, kHfConfigName, kManifestName));
  }
  const std::string text = read_small_file(*config, kMaxHfConfigBytes);
  hf_ = read_hf_config(text, *config, ignored_keys);
  for (const std::string& key : training_options(text, *config)) {
    notes_.push_back(key + " of config.json is left out: it is for training elsewhere");
  }
}

std::vector<Asset> ModelSource::assets() const {
  if (kind_ == Kind::hugging_face) return list_assets(path_, AssetKind::model);
  std::vector<Asset> assets;
  for (const FileRecord& record : manifest_->assets) {
    assets.push_back({record.name, asset_path(*manifest_, path_, record.name)});
  }
  return assets;
}

std::string ModelSource::description() const {
  if (kind_ == Kind::checkpoint) {
    return absl::StrFormat("checkpoint %s, step %d", path_, manifest_->header.step);
  }
  return absl::StrFormat("Hugging Face folder %s%s", path_,
                         hf_.torch_dtype.empty() ? "" : ", " + hf_.torch_dtype);
}

std::unique_ptr<WeightSource> ModelSource::open_weights(const ModelConfig& model, bool compares,
                                                        std::vector<std::string>& notes) const {
  if (with_shapes_of(model, hf_.model) != hf_.model) {
    throw config_error(absl::StrFormat(
        "the model that is configured has other weights than %s; leave out of `model` what "
        "init_from says",
        path_));
  }
  if (kind_ == Kind::checkpoint) {
    if (assets().size() > 0) check_assets(manifest_->assets, path_);
    return std::make_unique<CheckpointReader>(path_);
  }
  auto weights = std::make_unique<HfWeights>(path_, hf_);
  if (compares) weights->check_stored_head();
  notes = notes_;
  std::ranges::copy(weights->notes(), std::back_inserter(notes));
  return weights;
}

ModelConfig read_model(const std::string& path) { return ModelSource(path).model(); }

}  // namespace caravan
