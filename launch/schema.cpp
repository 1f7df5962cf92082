// Formats of plain values, and the messages about keys.
#include "launch/schema.h"

#include <charconv>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "launch/nearest_name.h"
#include "runtime/memory_limit.h"

namespace caravan {
namespace {

// The fewest digits that read back as the same number.
std::string shortest(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  check(error == std::errc{}, "cannot write a number");
  return std::string(buffer, end);
}

bool is_plain(const YamlNode& node) { return node.kind == YamlNode::Kind::scalar && !node.quoted; }

std::string value_text(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "empty";
    case YamlNode::Kind::scalar:
      return absl::StrFormat("%s'%s'", node.quoted ? "the text " : "", printable(node.text));
    case YamlNode::Kind::sequence:
      return "a list: " + printable(inline_yaml(node));
    case YamlNode::Kind::map:
      return "a section: " + printable(inline_yaml(node));
  }
  throw internal_error("unknown kind of YAML node");
}

// Names of other tools for keys of ours, which are too far apart to be found by their letters.
struct Synonym {
  std::string_view other, ours;
};
constexpr Synonym kSynonyms[] = {
    {"lr", "learning_rate"},
    {"clip_grad_norm", "max_grad_norm"},
    {"gradient_clipping", "max_grad_norm"},
    {"lr_scheduler", "lr_scheduler_type"},
    {"beta1", "adam_beta1"},
    {"beta2", "adam_beta2"},
    {"eps", "adam_epsilon"},
    {"train_steps", "max_steps"},
    {"steps", "max_steps"},
    {"batch_size", "global_batch_size"},
    {"train_batch_size", "global_batch_size"},
    {"per_device_train_batch_size", "micro_batch_size"},
    {"gradient_accumulation_steps", "global_batch_size"},
    {"max_seq_len", "sequence_len"},
    {"cutoff_len", "sequence_len"},
    {"data_parallel_size", "dp"},
    {"tensor_parallel", "tp"},
    {"tensor_parallel_size", "tp"},
    {"tensor_model_parallel_size", "tp"},
    {"expert_parallel_size", "ep"},
    {"expert_model_parallel_size", "ep"},
    {"zero_stage", "zero"},
    {"type", "rope_type"},
    {"log_every_n_steps", "logging_steps"},
    {"resume", "resume_from_checkpoint"},
};

std::string last_name(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// A synonym or near name in this section, or that very name in another section.
std::string hint(const std::string& key, const ReadPlace& place,
                 const std::vector<std::string>& names) {
  std::string name = key;
  for (const Synonym& synonym : kSynonyms) {
    if (key == synonym.other) name = synonym.ours;
  }
  if (std::find(names.begin(), names.end(), name) != names.end()) return name;
  for (const std::string& path : place.all_paths) {
    if (last_name(path) == name && !absl::StrContains(path, "[]")) return path;
  }
  return nearest_name(key, names).value_or("");
}

}  // namespace

Format<int64_t> integer(int64_t least, int64_t most) {
  return {.words = absl::StrFormat("an integer from %d to %d", least, most),
          .read = [least, most](const YamlNode& node) -> std::optional<int64_t> {
            if (!is_plain(node)) return {};
            const auto value = parse_integer(node.text);
            return value && *value >= least && *value <= most ? value : std::nullopt;
          },
          .write = [](const int64_t& value) { return yaml_scalar(absl::StrFormat("%d", value)); }};
}

Format<int64_t> or_null(const Format<int64_t>& format) {
  return {.words = "null or " + format.words,
          .read = [format](const YamlNode& node) -> std::optional<int64_t> {
            if (node.kind == YamlNode::Kind::null) return 0;
            return format.read(node);
          },
          .write =
              [format](const int64_t& value) {
                return value == 0 ? yaml_node(YamlNode::Kind::null, "") : format.write(value);
              }};
}

Format<double> real(double least, double most) {
  return {.words = absl::StrFormat("a number from %g to %g", least, most),
          .read = [least, most](const YamlNode& node) -> std::optional<double> {
            if (!is_plain(node)) return {};
            const auto value = parse_real(node.text);
            return value && *value >= least && *value <= most ? value : std::nullopt;
          },
          .write = [](const double& value) { return yaml_scalar(shortest(value)); }};
}

Format<double> positive_real() {
  constexpr double kMost = 1e30;  // a float holds it and what it is multiplied by
  return {.words = absl::StrFormat("a number above 0 and at most %g", kMost),
          .read = [](const YamlNode& node) -> std::optional<double> {
            if (!is_plain(node)) return {};
            const auto value = parse_real(node.text);
            return value && *value > 0 && *value <= kMost ? value : std::nullopt;
          },
          .write = [](const double& value) { return yaml_scalar(shortest(value)); }};
}

Format<bool> boolean() {
  return {.words = "true or false",
          .read = [](const YamlNode& node) -> std::optional<bool> {
            return is_plain(node) ? parse_boolean(node.text) : std::nullopt;
          },
          .write = [](const bool& value) { return yaml_scalar(value ? "true" : "false"); }};
}

Format<std::string> text() {
  return {.words = "a text",
          .read = [](const YamlNode& node) -> std::optional<std::string> {
            if (node.kind != YamlNode::Kind::scalar || node.text.empty()) return {};
            return node.text;
          },
          .write = [](const std::string& value) { return yaml_string(value); }};
}

Format<int64_t> byte_size(bool may_be_zero) {
  return {.words = std::string("a size such as 512MiB or 20GiB") + (may_be_zero ? ", or 0" : ""),
          .read = [may_be_zero](const YamlNode& node) -> std::optional<int64_t> {
            if (node.kind != YamlNode::Kind::scalar) return {};
            if (may_be_zero && node.text == "0") return 0;
            return parse_bytes(node.text);
          },
          .write = [](const int64_t& value) { return yaml_scalar(exact_bytes(value)); }};
}

void refuse_value(const YamlNode& node, const ReadPlace& place, const std::string& words) {
  throw config_error(absl::StrFormat("%s: %s is %s; expected %s", node.where,
                                     place.path.empty() ? "the document" : place.path,
                                     value_text(node), words));
}

void refuse_key(const YamlEntry& entry, const ReadPlace& place,
                const std::vector<std::string>& names) {
  const std::string name = hint(entry.key, place, names);
  throw config_error(absl::StrFormat(
      "%s: unknown key '%s' %s; %s", entry.where, printable(entry.key),
      place.path.empty() ? "at the top level" : "in " + place.path,
      name.empty() ? "known keys: " + absl::StrJoin(names, ", ") : "did you mean '" + name + "'?"));
}

void refuse_missing(const YamlNode& section, const ReadPlace& place, const std::string& name,
                    const std::string& words) {
  throw config_error(
      absl::StrFormat("%s: missing key '%s' %s; add '%s: ...', %s", section.where, name,
                      place.path.empty() ? "at the top level" : "in " + place.path, name, words));
}

void refuse_here(const YamlNode& node, const ReadPlace& place, const std::string& fix) {
  throw config_error(absl::StrFormat("%s: %s is given, but %s", node.where, place.path, fix));
}

}  // namespace caravan
