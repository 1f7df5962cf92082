// Loading, the rules between keys, and writing back.
#include "launch/config.h"

#include "absl/strings/str_join.h"

#include <sstream>

#include <algorithm>

#include "launch/config_schema.h"
#include "launch/layout_rules.h"
#include "launch/nearest_name.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

YamlNode* find(YamlNode& section, std::string_view key) {
  return const_cast<YamlNode*>(section.find(key));
}

// Keys that a model with init_from does not give are those of the model that this names.
void expand_init_from(YamlNode& root, const ModelReader& read_model) {
  YamlNode* const model = find(root, "model");
  if (model == nullptr || !read_model || model->kind != YamlNode::Kind::map) return;
  const YamlNode* const found = model->find("init_from");
  if (found == nullptr || found->kind != YamlNode::Kind::scalar) return;
  const YamlNode from = *found;  // a copy: entries are added to where it stands
  const auto is_given = [&](const Key<ModelConfig>& key) {
    return !key.required || model->find(key.name) != nullptr;
  };
  if (std::ranges::all_of(model_keys(), is_given)) return;  // as in an effective configuration
  const ModelConfig source = read_model(from.text);
  const YamlNode* const family = model->find("family");
  if (family != nullptr && family->text != name(source.family)) {
    throw config_error(absl::StrFormat("%s: model.family is %s, but %s is a %s; remove the key",
                                       family->where, printable(family->text), from.text,
                                       name(source.family)));
  }
  const YamlNode keys = write_section(model_keys(), source);
  for (const YamlEntry& entry : keys.entries) {
    if (model->find(entry.key) != nullptr) continue;
    model->entries.push_back(entry);
    model->entries.back().value.where = from.where;
  }
}

Config read_config(YamlNode root, std::span<const std::string> overrides,
                   const ModelReader& read_model) {
  for (const std::string& assignment : overrides) apply_override(root, assignment);
  expand_init_from(root, read_model);
  const Keys<Config> keys = config_keys();
  std::vector<std::string> all_paths;
  for (const KeyInfo& info : describe_keys(keys)) all_paths.push_back(info.path);
  Config config;
  read_section(keys, root, {"", all_paths}, config);
  config.model = with_derived_sizes(config.model);
  if (config.model.num_local_experts > 0 && !config.moe) config.moe.emplace();
  return config;
}

void validate_batch(const Config& config, const ParallelSizes& sizes) {
  const int64_t global = config.train.global_batch_size;
  const int64_t micro = config.train.micro_batch_size;
  const int64_t unit = micro * sizes.num_batch_parts();
  if (global % unit == 0) return;
  const int64_t below = global / unit * unit;
  const std::string fix =
      below == 0 ? absl::StrFormat("%d", unit) : absl::StrFormat("%d or %d", below, below + unit);
  throw config_error(absl::StrFormat(
      "train.global_batch_size %d is not divisible by train.micro_batch_size %d x parallel.dp %d%s "
      "= %d; use train.global_batch_size=%s",
      global, micro, sizes.dp, sizes.ep > 1 ? absl::StrFormat(" x parallel.ep %d", sizes.ep) : "",
      unit, fix));
}

void validate_schedule(const Config& config) {
  const OptimizerConfig& optimizer = config.optimizer;
  const bool is_wsd = optimizer.lr_scheduler_type == LrScheduleKind::wsd;
  if (is_wsd && (optimizer.decay_steps < 1 || optimizer.decay_steps > config.train.max_steps)) {
    throw config_error(
        absl::StrFormat("optimizer.lr_scheduler_type is wsd and optimizer.decay_steps is %d; "
                        "give 1 to train.max_steps %d",
                        optimizer.decay_steps, config.train.max_steps));
  }
  if (!is_wsd && optimizer.decay_steps > 0) {
    throw config_error(absl::StrFormat(
        "optimizer.decay_steps is %d, but only lr_scheduler_type wsd has it; remove it",
        optimizer.decay_steps));
  }
}

void validate_data(const Config& config) {
  if (config.data.sequence_len > config.model.max_position_embeddings) {
    throw config_error(absl::StrFormat(
        "data.sequence_len %d is longer than model.max_position_embeddings %d; raise the latter",
        config.data.sequence_len, config.model.max_position_embeddings));
  }
  if (config.train.eval_steps > 0 && config.data.validation.empty()) {
    throw config_error(absl::StrFormat(
        "train.eval_steps is %d, but there is no data.validation; give its path, or eval_steps=0",
        config.train.eval_steps));
  }
}

}  // namespace

Config parse_config(std::string_view text, const std::string& name,
                    std::span<const std::string> overrides, const ModelReader& read_model) {
  return read_config(parse_yaml(text, name), overrides, read_model);
}

Config load_config(const std::string& path, std::span<const std::string> overrides,
                   const ModelReader& read_model) {
  return read_config(load_yaml(path), overrides, read_model);
}

std::string to_yaml(const ModelConfig& model) {
  return emit_yaml(write_section(model_keys(), model));
}

ModelConfig parse_model(std::string_view text, const std::string& name) {
  ModelConfig model;
  const std::vector<std::string> no_other_paths;
  read_section(model_keys(), parse_yaml(text, name), {"", no_other_paths}, model);
  return with_derived_sizes(model);
}

LrSchedule lr_schedule(const Config& config) {
  const OptimizerConfig& o = config.optimizer;
  return {.kind = o.lr_scheduler_type,
          .peak = o.learning_rate,
          .min_ratio = o.min_lr_ratio,
          .warmup_steps = o.warmup_steps,
          .decay_steps = o.decay_steps,
          .max_steps = config.train.max_steps};
}

int64_t accumulation_steps(const Config& config, int world_size) {
  const ParallelSizes sizes = parallel_sizes(config.parallel, world_size);
  validate_batch(config, sizes);
  return config.train.global_batch_size / (config.train.micro_batch_size * sizes.num_batch_parts());
}

void validate(const Config& config, int world_size) {
  validate(config.model);
  validate_data(config);
  validate_schedule(config);
  const ParallelSizes sizes = parallel_sizes(config.parallel, world_size);
  check_layout(config, sizes);
  validate_batch(config, sizes);
}

std::string to_yaml(const Config& config) {
  return emit_yaml(write_section(config_keys(), config));
}

std::string config_hash(const Config& config) {
  return absl::StrFormat("%016x", stable_hash(to_yaml(config)));
}

namespace {

// "train.seed" -> "1", from the effective YAML: two blanks a level, one key a line.
std::vector<std::pair<std::string, std::string>> flat_values(const Config& config) {
  std::vector<std::pair<std::string, std::string>> values;
  std::vector<std::string> path;
  std::istringstream lines(to_yaml(config));
  for (std::string line; std::getline(lines, line);) {
    const size_t indent = line.find_first_not_of(' ');
    const size_t colon = line.find(':', indent);
    path.resize(indent / 2);
    path.push_back(line.substr(indent, colon - indent));
    if (colon + 1 < line.size())
      values.emplace_back(absl::StrJoin(path, "."), line.substr(colon + 2));
  }
  return values;
}

}  // namespace

std::vector<ConfigChange> changed_keys(const Config& before, const Config& after) {
  const auto old_values = flat_values(before), new_values = flat_values(after);
  const auto value_of = [](const auto& values, const std::string& path) {
    const auto at = std::ranges::find(values, path, &std::pair<std::string, std::string>::first);
    return at == values.end() ? std::string("absent") : at->second;
  };
  std::vector<ConfigChange> changes;
  for (const auto& [path, value] : new_values) {
    const std::string old = value_of(old_values, path);
    if (old != value) changes.push_back({path, old, value});
  }
  for (const auto& [path, value] : old_values) {
    if (value_of(new_values, path) == "absent") changes.push_back({path, value, "absent"});
  }
  return changes;
}

std::string config_reference() {
  std::string text;
  for (const KeyInfo& info : describe_keys(config_keys())) {
    const std::string value =
        info.default_value.empty() ? "" : absl::StrFormat(" [%s]", info.default_value);
    text += absl::StrFormat("%-48s %s%s\n    %s\n", info.path, info.words, value, info.help);
  }
  return text;
}

}  // namespace caravan
