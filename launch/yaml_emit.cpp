// Writing: a tree as text that parse_yaml reads back as the same tree.
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "launch/yaml.h"
#include "runtime/error.h"

namespace caravan {
namespace {

bool is_safe_plain(const std::string& text) {
  if (text.empty()) return false;
  const char first = text[0];
  if (!absl::ascii_isalpha(first) && first != '/' && first != '_') return false;
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && !absl::StrContains("_/.+-", std::string(1, c))) return false;
  }
  return true;
}

// Words that stand for something else than themselves when they are not quoted.
bool is_reserved(const std::string& text) {
  constexpr std::string_view kReserved[] = {"null", "true", "false", "auto"};
  for (const std::string_view word : kReserved) {
    if (absl::EqualsIgnoreCase(text, absl::string_view(word.data(), word.size()))) return true;
  }
  return false;
}

std::string quote(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(c);
  }
  return quoted + "\"";
}

std::string key_text(const std::string& key) {
  return is_safe_plain(key) && !is_reserved(key) ? key : quote(key);
}

void block(const YamlNode& map, const std::string& indent, std::string& text) {
  for (const YamlEntry& entry : map.entries) {
    text += indent + key_text(entry.key) + ":";
    if (entry.value.kind == YamlNode::Kind::map && !entry.value.entries.empty()) {
      text += "\n";
      block(entry.value, indent + "  ", text);
    } else {
      text += " " + inline_yaml(entry.value) + "\n";
    }
  }
}

}  // namespace

YamlNode yaml_scalar(std::string text) {
  YamlNode node = yaml_node(YamlNode::Kind::scalar, "");
  node.text = std::move(text);
  return node;
}

YamlNode yaml_string(std::string text) {
  YamlNode node = yaml_scalar(std::move(text));
  node.quoted = !is_safe_plain(node.text) || is_reserved(node.text);
  return node;
}

YamlNode yaml_sequence(std::vector<YamlNode> items) {
  YamlNode node = yaml_node(YamlNode::Kind::sequence, "");
  node.items = std::move(items);
  return node;
}

YamlNode yaml_map(std::vector<YamlEntry> entries) {
  YamlNode node = yaml_node(YamlNode::Kind::map, "");
  node.entries = std::move(entries);
  return node;
}

std::string inline_yaml(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::null:
      return "null";
    case YamlNode::Kind::scalar:
      return node.quoted ? quote(node.text) : node.text;
    case YamlNode::Kind::sequence: {
      std::string text;
      for (const YamlNode& item : node.items)
        text += (text.empty() ? "" : ", ") + inline_yaml(item);
      return "[" + text + "]";
    }
    case YamlNode::Kind::map: {
      std::string text;
      for (const YamlEntry& entry : node.entries) {
        text += (text.empty() ? "" : ", ") + key_text(entry.key) + ": " + inline_yaml(entry.value);
      }
      return "{" + text + "}";
    }
  }
  throw internal_error("unknown kind of YAML node");
}

std::string emit_yaml(const YamlNode& root) {
  if (root.kind != YamlNode::Kind::map || root.entries.empty()) return inline_yaml(root) + "\n";
  std::string text;
  block(root, "", text);
  return text;
}

}  // namespace caravan
