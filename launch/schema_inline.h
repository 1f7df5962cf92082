// The templates of launch/schema.h; include that.
#pragma once

#include "launch/schema.h"
#include "runtime/error.h"

namespace caravan {

// Messages, in launch/schema.cpp.
[[noreturn]] void refuse_value(const YamlNode& node, const ReadPlace& place,
                               const std::string& words);
[[noreturn]] void refuse_key(const YamlEntry& entry, const ReadPlace& place,
                             const std::vector<std::string>& names);
[[noreturn]] void refuse_missing(const YamlNode& section, const ReadPlace& place,
                                 const std::string& name, const std::string& words);
[[noreturn]] void refuse_here(const YamlNode& node, const ReadPlace& place, const std::string& fix);

template <typename Value>
Format<Value> choice(const std::vector<std::pair<std::string, Value>>& words) {
  std::string names;
  for (const auto& [word, value] : words) names += (names.empty() ? "" : "|") + word;
  return {.words = names,
          .read = [words](const YamlNode& node) -> std::optional<Value> {
            for (const auto& [word, value] : words) {
              if (node.kind == YamlNode::Kind::scalar && node.text == word) return value;
            }
            return {};
          },
          .write =
              [words](const Value& wanted) {
                for (const auto& [word, value] : words) {
                  if (value == wanted) return yaml_scalar(word);
                }
                throw internal_error("a choice without a word");
              }};
}

template <typename Value>
Format<std::optional<Value>> or_auto(const Format<Value>& format) {
  using Result = std::optional<std::optional<Value>>;
  return {.words = "auto or " + format.words,
          .read = [format](const YamlNode& node) -> Result {
            const bool is_auto = node.kind == YamlNode::Kind::scalar && node.text == "auto";
            if (is_auto) return Result(std::in_place);
            const std::optional<Value> value = format.read(node);
            return value ? Result(value) : Result();
          },
          .write =
              [format](const std::optional<Value>& value) {
                return value ? format.write(*value) : yaml_scalar("auto");
              }};
}

template <typename Value>
Format<std::vector<Value>> list_of(const Format<Value>& format) {
  return {.words = "a list of " + format.words,
          .read = [format](const YamlNode& node) -> std::optional<std::vector<Value>> {
            if (node.kind != YamlNode::Kind::sequence) return {};
            std::vector<Value> values;
            for (const YamlNode& item : node.items) {
              const std::optional<Value> value = format.read(item);
              if (!value) return {};
              values.push_back(*value);
            }
            return values;
          },
          .write =
              [format](const std::vector<Value>& values) {
                std::vector<YamlNode> items;
                for (const Value& value : values) items.push_back(format.write(value));
                return yaml_sequence(std::move(items));
              }};
}

template <typename Section, typename Value>
Key<Section> key(std::string name, Value Section::*member, Format<Value> format, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .words = format.words,
          .read =
              [member, format](Section& section, const YamlNode& node, const ReadPlace& place) {
                const std::optional<Value> value = format.read(node);
                if (!value) refuse_value(node, place, format.words);
                section.*member = *value;
              },
          .write = [member, format](const Section& section) -> std::optional<YamlNode> {
            return format.write(section.*member);
          },
          .describe = {}};
}

template <typename Section>
Key<Section> required(Key<Section> key) {
  key.required = true;
  return key;
}

template <typename Section, typename Value>
Key<Section> optional_key(std::string name, Value Section::*member, Format<Value> format,
                          std::string help) {
  Key<Section> result = key(std::move(name), member, format, std::move(help));
  result.write = [member, format](const Section& section) -> std::optional<YamlNode> {
    if (section.*member == Value{}) return {};
    return format.write(section.*member);
  };
  return result;
}

template <typename Section, typename Value>
Key<Section> optional_key(std::string name, std::optional<Value> Section::*member,
                          Format<Value> format, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .words = "null or " + format.words,
          .read =
              [member, format](Section& section, const YamlNode& node, const ReadPlace& place) {
                section.*member = format.read(node);
                const bool is_null = node.kind == YamlNode::Kind::null;
                if (!is_null && !(section.*member)) refuse_value(node, place, format.words);
              },
          .write = [member, format](const Section& section) -> std::optional<YamlNode> {
            if (!(section.*member)) return {};
            return format.write(*(section.*member));
          },
          .describe = {}};
}

template <typename Section>
Key<Section> only_where(std::function<bool(const Section&)> has_it, const Section& example,
                        std::string fix, Key<Section> key) {
  Key<Section> result = key;
  const auto value = key.write(example);
  result.default_value = value ? inline_yaml(*value) : "";
  result.read = [has_it, fix, read = key.read](Section& section, const YamlNode& node,
                                               const ReadPlace& place) {
    if (!has_it(section)) refuse_here(node, place, fix);
    read(section, node, place);
  };
  result.write = [has_it, write = key.write](const Section& section) -> std::optional<YamlNode> {
    if (!has_it(section)) return {};
    return write(section);
  };
  return result;
}

template <typename Section, typename Inner>
Key<Section> section(std::string name, Inner Section::*member, Keys<Inner> keys, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .words = "a section",
          .is_section = true,
          .read = [member, keys](
                      Section& section, const YamlNode& node,
                      const ReadPlace& place) { read_section(keys, node, place, section.*member); },
          .write = [member, keys](const Section& section) -> std::optional<YamlNode> {
            return write_section(keys, section.*member);
          },
          .describe = [keys](const std::string& path) { return describe_keys(keys, path); }};
}

template <typename Section, typename Inner>
Key<Section> optional_section(std::string name, std::optional<Inner> Section::*member,
                              Keys<Inner> keys, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .words = "null or a section",
          .read =
              [member, keys](Section& section, const YamlNode& node, const ReadPlace& place) {
                (section.*member).reset();
                if (node.kind == YamlNode::Kind::null) return;
                read_section(keys, node, place, (section.*member).emplace());
              },
          .write = [member, keys](const Section& section) -> std::optional<YamlNode> {
            if (!(section.*member)) return {};
            return write_section(keys, *(section.*member));
          },
          .describe = [keys](const std::string& path) { return describe_keys(keys, path); }};
}

template <typename Section, typename Inner>
Key<Section> section_list(std::string name, std::vector<Inner> Section::*member, Keys<Inner> keys,
                          std::string Inner::*short_form, std::string help) {
  const auto read_item = [keys, short_form](const YamlNode& node, const ReadPlace& place) {
    Inner inner;
    if (node.kind == YamlNode::Kind::scalar) {
      inner.*short_form = node.text;
    } else {
      read_section(keys, node, place, inner);
    }
    return inner;
  };
  return {.name = std::move(name),
          .help = std::move(help),
          .words = "a path, or a list of sections",
          .read =
              [member, read_item](Section& section, const YamlNode& node, const ReadPlace& place) {
                const bool is_list = node.kind == YamlNode::Kind::sequence && !node.items.empty();
                const bool is_text = node.kind == YamlNode::Kind::scalar && !node.text.empty();
                if (!is_list && !is_text) {
                  refuse_value(node, place, "a path, or a list such as [{path: data/docs}]");
                }
                (section.*member).clear();
                if (is_text) (section.*member).push_back(read_item(node, place));
                for (const YamlNode& item : node.items) {
                  (section.*member).push_back(read_item(item, place));
                }
              },
          .write = [member, keys](const Section& section) -> std::optional<YamlNode> {
            std::vector<YamlNode> items;
            for (const Inner& inner : section.*member) items.push_back(write_section(keys, inner));
            return yaml_sequence(std::move(items));
          },
          .describe = [keys](const std::string& path) { return describe_keys(keys, path + "[]"); }};
}

template <typename Section>
Key<Section> constant_key(std::string name, std::string word, std::string help) {
  return {.name = std::move(name),
          .help = std::move(help),
          .words = word,
          .read =
              [word](Section&, const YamlNode& node, const ReadPlace& place) {
                if (node.kind != YamlNode::Kind::scalar || node.text != word) {
                  refuse_value(node, place, word);
                }
              },
          .write = [word](const Section&) -> std::optional<YamlNode> { return yaml_scalar(word); },
          .describe = {}};
}

template <typename Section>
void read_section(const Keys<Section>& keys, const YamlNode& node, const ReadPlace& place,
                  Section& section) {
  if (node.kind != YamlNode::Kind::map && node.kind != YamlNode::Kind::null) {
    refuse_value(node, place, "a section of keys");
  }
  std::vector<std::string> names;
  for (const Key<Section>& key : keys) names.push_back(key.name);
  for (const YamlEntry& entry : node.entries) {
    if (std::find(names.begin(), names.end(), entry.key) == names.end()) {
      refuse_key(entry, place, names);
    }
  }
  YamlNode absent;
  absent.where = node.where;
  for (const Key<Section>& key : keys) {
    const YamlNode* value = node.find(key.name);
    if (!value && key.required) refuse_missing(node, place, key.name, key.words);
    if (!value && !key.is_section) continue;  // the default of the struct
    key.read(section, value ? *value : absent, place.inside(key.name));
  }
}

template <typename Section>
YamlNode write_section(const Keys<Section>& keys, const Section& section) {
  std::vector<YamlEntry> entries;
  for (const Key<Section>& key : keys) {
    if (auto value = key.write(section)) entries.push_back({key.name, "", std::move(*value)});
  }
  return yaml_map(std::move(entries));
}

template <typename Section>
std::vector<KeyInfo> describe_keys(const Keys<Section>& keys, const std::string& path) {
  std::vector<KeyInfo> infos;
  for (const Key<Section>& key : keys) {
    const std::string key_path = path.empty() ? key.name : path + "." + key.name;
    const auto value = key.write(Section{});
    const bool has_default = !key.required && !key.describe && value;
    infos.push_back({.path = key_path,
                     .words = key.words,
                     .default_value = key.required  ? "required"
                                      : has_default ? inline_yaml(*value)
                                                    : key.default_value,
                     .help = key.help});
    if (!key.describe) continue;
    for (KeyInfo& info : key.describe(key_path)) infos.push_back(std::move(info));
  }
  return infos;
}

}  // namespace caravan
