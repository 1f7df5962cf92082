// Keys of a configuration as data. A section is a table with one line per key: name, member of the
// struct, format, help. Reading, writing, messages and the reference all come from that table.
//
//   std::vector<Key<TrainConfig>> train_keys() {
//     return {required(key("max_steps", &TrainConfig::max_steps, integer(1), "steps of the run")),
//             key("seed", &TrainConfig::seed, integer(0), "of all random numbers")};
//   }
//
// Errors: config errors of one line, file:line:column first.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/yaml.h"

namespace caravan {

// What a value looks like. `words` completes "expected ...".
template <typename Value>
struct Format {
  std::string words;
  std::function<std::optional<Value>(const YamlNode&)> read;  // nothing: not of this format
  std::function<YamlNode(const Value&)> write;
};

Format<int64_t> integer(int64_t least, int64_t most = 1'000'000'000'000'000);
Format<double> real(double least, double most);
Format<double> positive_real();
Format<bool> boolean();
Format<std::string> text();
Format<int64_t> byte_size(bool may_be_zero = false);

// One of some words; the first word of a value is the one that is written.
template <typename Value>
Format<Value> choice(const std::vector<std::pair<std::string, Value>>& words);

// `format`, or the word `auto` for an absent value.
template <typename Value>
Format<std::optional<Value>> or_auto(const Format<Value>& format);

// `format`, or null for 0.
Format<int64_t> or_null(const Format<int64_t>& format);

template <typename Value>
Format<std::vector<Value>> list_of(const Format<Value>& format);

struct KeyInfo {
  std::string path;  // "optimizer.learning_rate"
  std::string words;
  std::string default_value;  // "required" when there is none, empty when absent
  std::string help;
};

// Where a reader stands: the path so far, and all keys of the configuration for hints.
struct ReadPlace {
  std::string path;  // "" at the top
  const std::vector<std::string>& all_paths;

  ReadPlace inside(const std::string& name) const {
    return {path.empty() ? name : path + "." + name, all_paths};
  }
};

template <typename Section>
struct Key {
  std::string name, help, words;
  bool required = false;
  bool is_section = false;  // read even when absent, so that its required keys are asked for
  std::function<void(Section&, const YamlNode&, const ReadPlace&)> read;
  std::function<std::optional<YamlNode>(const Section&)> write;      // nothing: absent
  std::function<std::vector<KeyInfo>(const std::string&)> describe;  // of a section: its keys
  std::string default_value = {};  // where it is another than that of Section{}
};

template <typename Section>
using Keys = std::vector<Key<Section>>;

// A value.
template <typename Section, typename Value>
Key<Section> key(std::string name, Value Section::*member, Format<Value> format, std::string help);

// The same, without a default.
template <typename Section>
Key<Section> required(Key<Section> key);

// A number that may be left out; the member is 0 then.
template <typename Section, typename Value>
Key<Section> optional_key(std::string name, Value Section::*member, Format<Value> format,
                          std::string help);

// A value that may be absent: left out, or null.
template <typename Section, typename Value>
Key<Section> optional_key(std::string name, std::optional<Value> Section::*member,
                          Format<Value> format, std::string help);

// A key that only some sections have, by what was read before it: the others refuse it and do not
// write it. `example` has it, with the default to show; `fix` completes the refusal.
template <typename Section>
Key<Section> only_where(std::function<bool(const Section&)> has_it, const Section& example,
                        std::string fix, Key<Section> key);

// A section inside a section.
template <typename Section, typename Inner>
Key<Section> section(std::string name, Inner Section::*member, Keys<Inner> keys, std::string help);

// A section that may be left out, or be null.
template <typename Section, typename Inner>
Key<Section> optional_section(std::string name, std::optional<Inner> Section::*member,
                              Keys<Inner> keys, std::string help);

// A list of sections; where only `short_form` is meant, its text alone will do.
template <typename Section, typename Inner>
Key<Section> section_list(std::string name, std::vector<Inner> Section::*member, Keys<Inner> keys,
                          std::string Inner::*short_form, std::string help);

// A key that can hold only `word`, which needs no member.
template <typename Section>
Key<Section> constant_key(std::string name, std::string word, std::string help);

template <typename Section>
void read_section(const Keys<Section>& keys, const YamlNode& node, const ReadPlace& place,
                  Section& section);

template <typename Section>
YamlNode write_section(const Keys<Section>& keys, const Section& section);

template <typename Section>
std::vector<KeyInfo> describe_keys(const Keys<Section>& keys, const std::string& path = "");

}  // namespace caravan

#include "launch/schema_inline.h"
