// A strict reader of YAML: text -> a plain tree in which every node knows where it stands.
//
// It accepts the part of YAML that configurations need and refuses the rest by name: anchors,
// aliases, merge keys, tags, duplicate keys, keys that are not scalars, tabs as indentation,
// control characters, several documents; and anything beyond the bounds below. The tree is built
// from the parser's events, so an alias is refused where it stands and never expanded.
// It knows nothing of the keys: that is launch/schema.h.
//
// Errors: every function throws a config error, one line that begins with file:line:column.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caravan {

inline constexpr int64_t kYamlMaxBytes = 256 << 10;  // yaml-cpp may hold 240 times as much
inline constexpr int kYamlMaxDepth = 32;
inline constexpr int kYamlMaxNodes = 20'000;

struct YamlEntry;

struct YamlNode {
  enum class Kind : uint8_t { null, scalar, sequence, map };

  Kind kind = Kind::null;
  bool quoted = false;             // scalar in quotes: a string, whatever it looks like
  std::string text{};              // scalar, with ${env:NAME} replaced
  std::string where{};             // "configs/x.yaml:12:3", or "command line"
  std::vector<YamlNode> items{};   // sequence
  std::vector<YamlEntry> entries;  // map, in the order of the file, keys unique
  // (No {} after entries: that would need YamlEntry to be complete here.)

  const YamlNode* find(std::string_view key) const;  // of a map; null when absent
};

struct YamlEntry {
  std::string key;
  std::string where;  // of the key
  YamlNode value;
};

// Parses one document; `name` begins the places in messages. An empty document is a null node.
YamlNode parse_yaml(std::string_view text, const std::string& name);

// Reads and parses a file.
YamlNode load_yaml(const std::string& path);

// Applies "a.b=value" of the command line; the value is YAML. Sections on the way are created.
void apply_override(YamlNode& root, std::string_view assignment);

// A node of that kind without content.
YamlNode yaml_node(YamlNode::Kind kind, std::string where);

// Nodes to write.
YamlNode yaml_scalar(std::string text);  // a number or a word: written as it is
YamlNode yaml_string(std::string text);  // quoted where it could be read as something else
YamlNode yaml_sequence(std::vector<YamlNode> items);
YamlNode yaml_map(std::vector<YamlEntry> entries);

// The text of a tree: maps in block style, sequences and what they hold in flow style.
// parse_yaml of it gives the same tree, places apart.
std::string emit_yaml(const YamlNode& root);
std::string inline_yaml(const YamlNode& node);  // all in flow style, on one line

// Scalars, by our own rules: nothing when the text is not exactly that.
std::optional<int64_t> parse_integer(std::string_view text);  // 1000, 1_000, 1e3; not 010
std::optional<double> parse_real(std::string_view text);      // 0.1, 1e-5; finite; not 010
std::optional<bool> parse_boolean(std::string_view text);     // true, false

}  // namespace caravan
