// A model that exists: a Hugging Face folder, a checkpoint, or a run (its newest checkpoint). What
// training, import and export start from.
//
// Errors: checkpoint errors that name the path and the fix.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/assets.h"
#include "checkpoint/manifest.h"
#include "checkpoint/weight_source.h"
#include "models/hf_config.h"

namespace caravan {

class ModelSource {
 public:
  enum class Kind : uint8_t { hugging_face, checkpoint };

  // Reads what the model is; its weights are not touched.
  explicit ModelSource(const std::string& path, std::span<const std::string> ignored_keys = {});

  Kind kind() const { return kind_; }
  const std::string& path() const { return path_; }  // of a run: that of its newest checkpoint
  const ModelConfig& model() const { return hf_.model; }
  // The model and ids of tokens. Of a checkpoint the ids are those of the config.json that it was
  // imported with, if any.
  const HfConfig& hf() const { return hf_; }
  // Of a checkpoint.
  const Manifest& manifest() const { return *manifest_; }
  std::vector<Asset> assets() const;
  // "Hugging Face folder PATH, bfloat16", "checkpoint PATH, step 200"
  std::string description() const;

  // Opens the files and checks that they hold `model`, which may differ from model() in what has no
  // tensors: how positions turn, chunks, epsilons. `notes` is given what was left out. With
  // `compares` what is stored twice is compared: one of several processes is enough.
  std::unique_ptr<WeightSource> open_weights(const ModelConfig& model, bool compares,
                                             std::vector<std::string>& notes) const;

 private:
  void read_checkpoint();
  void read_folder(std::span<const std::string> ignored_keys);

  Kind kind_;
  std::string path_;
  HfConfig hf_;
  std::vector<std::string> notes_;  // on its config.json
  std::optional<Manifest> manifest_;
};

// For load_config (launch/config.h): the model of a path.
ModelConfig read_model(const std::string& path);

}  // namespace caravan
