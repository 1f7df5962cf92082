// What a run is told: one plain struct per section of the YAML file. The keys, their ranges and
// their help stand in launch/config_schema.cpp; this file has the values and their defaults.
// Config is passed to whoever needs it and never changes once it is loaded.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"
#include "optim/lr_schedule.h"
#include "runtime/types.h"

namespace caravan {

struct DataSource {
  std::string path;
  double weight = 1.0;  // share of the samples, relative to the other sources

  bool operator==(const DataSource&) const = default;
};

struct DataConfig {
  std::vector<DataSource> train;
  std::string validation;  // empty: no evaluation
  int64_t sequence_len = 0;
  bool attend_across_documents = false;
  // Of token files that do not say it themselves (.bin, .idx); absent and empty: not given.
  std::string tokenizer;  // a file or a folder
  int64_t vocab_size = 0;
  std::optional<int64_t> eos_token_id;
  std::optional<int64_t> bos_token_id;

  bool operator==(const DataConfig&) const = default;
};

struct TrainConfig {
  int64_t max_steps = 0;
  int64_t micro_batch_size = 0;   // sequences per rank and micro step
  int64_t global_batch_size = 0;  // sequences per step, over all ranks
  int64_t seed = 1;
  int64_t eval_steps = 0;    // 0: no evaluation while training
  int64_t eval_batches = 0;  // 0: all of the validation data
  int64_t max_skipped = 10;  // steps in a row whose loss or gradient norm was not finite

  bool operator==(const TrainConfig&) const = default;
};

enum class OptimizerName : uint8_t { adamw };
struct OptimizerConfig {
  OptimizerName name = OptimizerName::adamw;
  double learning_rate = 0;
  double weight_decay = 0.1;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.95;
  double adam_epsilon = 1e-8;
  double max_grad_norm = 1.0;  // 0: no clipping
  LrScheduleKind lr_scheduler_type = LrScheduleKind::cosine;
  int64_t warmup_steps = 0;
  double min_lr_ratio = 0.1;  // of learning_rate, at the end
  int64_t decay_steps = 0;    // wsd: the last steps, in which the rate falls

  bool operator==(const OptimizerConfig&) const = default;
};

struct ParallelConfig {
  // Sizes of the mesh; absent: auto, what the others leave of the processes.
  std::optional<int64_t> dp;
  std::optional<int64_t> tp = 1;
  std::optional<int64_t> ep = 1;
  int64_t zero = 0;
  bool sequence_parallel = false;
  int64_t bucket_bytes = 16 << 20;

  bool operator==(const ParallelConfig&) const = default;
};

enum class Balance : uint8_t { bias, aux_loss, none };

// How a mixture of experts is trained; its sizes are the model's.
struct MoeConfig {
  double capacity_factor = 0;   // 0: no token is dropped
  std::optional<double> slots;  // rows of a pass / rows that a rank routes; absent: auto
  Balance balance = Balance::bias;
  double bias_update_rate = 1e-3;  // of Balance::bias
  double aux_loss_coef = 1e-3;     // of Balance::aux_loss
  double z_loss_coef = 0;

  bool operator==(const MoeConfig&) const = default;
};

enum class DeviceKind : uint8_t { automatic, cpu, cuda };

// automatic: what costs one pass over memory, norms, SwiGLU and casts of weights.
enum class Recompute : uint8_t { automatic, none };

struct RuntimeConfig {
  DeviceKind device = DeviceKind::automatic;  // see launch/device.h
  DType dtype = DType::f32;                   // of activations; all that is kept is f32
  std::optional<int64_t> memory_limit;        // bytes per rank; absent: auto
  std::optional<int64_t> threads;             // per rank; absent: auto
  bool keep_all = false;                      // no reuse of memory, to look for errors
  Recompute recompute = Recompute::automatic;
  bool overlap = true;            // communication beside compute
  bool deterministic = false;     // CUDA: only algorithms that give the same bits each run
  bool cuda_graph = true;         // CUDA: a step is recorded once and started as a whole
  int64_t watchdog_seconds = 60;  // a rank that shows nothing for so long hangs; 0: off

  bool operator==(const RuntimeConfig&) const = default;
};

struct ResumeFrom {
  enum class Kind : uint8_t { automatic, never, path };
  Kind kind = Kind::automatic;
  std::string path;  // for Kind::path

  bool operator==(const ResumeFrom&) const = default;
};

enum class OnSaveError : uint8_t { stop, go_on };

struct CheckpointConfig {
  int64_t save_steps = 0;             // 0: only at the end
  int64_t save_total_limit = 3;       // the newest that are kept
  std::optional<int64_t> copy_bytes;  // absent: auto, what a save needs if the limit has room
  OnSaveError on_save_error = OnSaveError::stop;
  ResumeFrom resume_from_checkpoint;

  bool operator==(const CheckpointConfig&) const = default;
};

enum class ReportFormat : uint8_t { jsonl };

struct LogConfig {
  int64_t logging_steps = 10;
  std::vector<ReportFormat> report_to = {ReportFormat::jsonl};

  bool operator==(const LogConfig&) const = default;
};

struct Config {
  std::string output_dir;
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  ParallelConfig parallel;
  std::optional<MoeConfig> moe;  // there when the model has experts
  RuntimeConfig runtime;
  CheckpointConfig checkpoint;
  LogConfig log;

  bool operator==(const Config&) const = default;
};

// The model that a path names (model.init_from), for keys that a configuration leaves to it.
using ModelReader = std::function<ModelConfig(const std::string& path)>;

// Reads a file, applies overrides ("train.max_steps=100") and checks every key; sizes of the model
// that are derived from others are filled in. Without `read_model` a model must give its sizes also
// where it has init_from. Throws a config error: file:line:column, what, fix.
Config load_config(const std::string& path, std::span<const std::string> overrides = {},
                   const ModelReader& read_model = {});

// The same from text; `name` begins the places in messages.
Config parse_config(std::string_view text, const std::string& name,
                    std::span<const std::string> overrides = {},
                    const ModelReader& read_model = {});

// The section `model` alone, for checkpoints that are of no run.
inline constexpr char kModelText[] = "model";  // of CheckpointHeader::texts
std::string to_yaml(const ModelConfig& model);
ModelConfig parse_model(std::string_view text, const std::string& name);

// What needs more than one key, and the number of processes. Throws a config error.
void validate(const Config& config, int world_size);

LrSchedule lr_schedule(const Config& config);

// Micro steps per step on every rank: global_batch_size / (micro_batch_size * dp * ep).
int64_t accumulation_steps(const Config& config, int world_size);

// The effective configuration: every key with its value. parse_config reads it back as the same.
std::string to_yaml(const Config& config);

// 16 hexadecimal digits that differ when any value differs.
std::string config_hash(const Config& config);

struct ConfigChange {
  std::string path;  // "train.seed"
  std::string before;
  std::string after;
};
// The keys whose effective values differ, in the order of the file.
std::vector<ConfigChange> changed_keys(const Config& before, const Config& after);

// Every key: path, what it takes, default, meaning. For people.
std::string config_reference();

}  // namespace caravan
