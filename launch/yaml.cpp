// Reading: bounds and characters first, then yaml-cpp's events into our own tree.
#include "launch/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "launch/nearest_name.h"
#include "runtime/error.h"
#include "simdjson.h"

namespace caravan {
namespace {

constexpr char kCommandLine[] = "command line";

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw config_error(where + ": " + what);
}

// Replaces every ${env:NAME}. What comes from the environment is not looked at again, and must
// not contain "${", so that a written configuration reads back as itself.
std::string interpolate(const std::string& text, const std::string& where) {
  std::string result;
  size_t position = 0;
  for (size_t open; (open = text.find("${", position)) != std::string::npos;) {
    const size_t close = text.find('}', open);
    const bool known = text.compare(open, 6, "${env:") == 0 && close != std::string::npos;
    if (!known) refuse(where, "'${' begins ${env:NAME}, the only interpolation that there is");
    const std::string variable = text.substr(open + 6, close - open - 6);
    const char* value = std::getenv(variable.c_str());
    if (!value) {
      refuse(where, absl::StrFormat("environment variable '%s' is not set; export %s=...",
                                    printable(variable), printable(variable)));
    }
    if (std::strstr(value, "${")) {
      refuse(where, absl::StrFormat("environment variable '%s' contains '${'", variable));
    }
    result += text.substr(position, open - position) + value;
    position = close + 1;
  }
  return result + text.substr(position);
}

bool has_control_character(std::string_view text) {
  for (const char c : text) {
    if (absl::ascii_iscntrl(c)) return true;
  }
  return false;
}

// Receives the parser's events and builds the tree. Throws out of the event that is refused.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& name) : name_(name) { root_.where = place({}); }

  YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++num_documents_ > 1) {
      refuse(place(mark),
             "the document ended above; check the indentation, and keep to one document");
    }
  }
  void OnDocumentEnd() override {}

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_anchor(mark); }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    begin(mark, "?", anchor);
    if (expects_key()) refuse(place(mark), "a key is missing; write 'name: value'");
    attach(yaml_node(YamlNode::Kind::null, place(mark)));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    begin(mark, tag, anchor);
    const std::string where = place(mark);
    if (has_control_character(value)) {
      refuse(where, "a value holds a line break or control character; write it on one line");
    }
    if (expects_key()) return add_key(value, where, tag);
    YamlNode node = yaml_node(YamlNode::Kind::scalar, where);
    node.quoted = tag == "!";
    node.text = interpolate(value, where);
    // "${env:N}" must be quoted inside {}: what stands in the variable may still be a number.
    if (node.text != value) node.quoted = false;
    if (has_control_character(node.text)) refuse(where, "a line break comes from the environment");
    attach(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::sequence);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, YamlNode::Kind::map);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

 private:
  // A collection that is still open. Of a map: the keys so far, and whether the last has a value.
  struct Frame {
    YamlNode node;
    absl::flat_hash_set<std::string> keys;
    bool has_key = false;
  };

  std::string place(const YAML::Mark& mark) const {
    if (name_ == kCommandLine) return name_;
    return absl::StrFormat("%s:%d:%d", name_, mark.line + 1, mark.column + 1);
  }

  [[noreturn]] void refuse_anchor(const YAML::Mark& mark) const {
    refuse(place(mark), "anchors and aliases are not supported; write the value out");
  }

  bool expects_key() const {
    return !frames_.empty() && frames_.back().node.kind == YamlNode::Kind::map &&
           !frames_.back().has_key;
  }

  // What holds for every node: bounds, no anchor, no tag.
  void begin(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) refuse_anchor(mark);
    if (!tag.empty() && tag != "?" && tag != "!") {
      refuse(place(mark), absl::StrFormat("tag '%s' is not supported; remove it", printable(tag)));
    }
    if (++num_nodes_ > kYamlMaxNodes) {
      refuse(place(mark),
             absl::StrFormat("more than %d values; a configuration is far smaller", kYamlMaxNodes));
    }
  }

  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YamlNode::Kind kind) {
    begin(mark, tag, anchor);
    // The parser takes an unclosed list that begins a value of the command line for a key, too.
    if (expects_key()) {
      refuse(place(mark), kind == YamlNode::Kind::sequence
                              ? "a list is not closed (add ']'), or stands where a key must"
                              : "a map is not closed (add '}'), or stands where a key must");
    }
    if (frames_.size() >= kYamlMaxDepth) {
      refuse(place(mark), absl::StrFormat("nested more than %d deep", kYamlMaxDepth));
    }
    frames_.push_back({.node = yaml_node(kind, place(mark)), .keys = {}});
  }

  void close() {
    YamlNode node = std::move(frames_.back().node);
    frames_.pop_back();
    attach(std::move(node));
  }

  void add_key(const std::string& key, const std::string& where, const std::string& tag) {
    if (key == "<<" && tag != "!") {
      refuse(where, "merge keys ('<<') are not supported; write the values out");
    }
    Frame& frame = frames_.back();
    if (!frame.keys.insert(key).second) {
      refuse(where, absl::StrFormat("duplicate key '%s'; it was given before, remove one",
                                    printable(key)));
    }
    frame.node.entries.push_back({.key = key, .where = where, .value = {}});
    frame.has_key = true;
  }

  void attach(YamlNode node) {
    if (frames_.empty()) {
      root_ = std::move(node);
    } else if (Frame& frame = frames_.back(); frame.node.kind == YamlNode::Kind::sequence) {
      frame.node.items.push_back(std::move(node));
    } else {
      frame.node.entries.back().value = std::move(node);
      frame.has_key = false;
    }
  }

  const std::string& name_;
  YamlNode root_;
  std::vector<Frame> frames_;
  int num_nodes_ = 0;
  int num_documents_ = 0;
};

// What yaml-cpp would pass on or replace silently.
void check_characters(std::string_view text, const std::string& name) {
  int line = 1;
  bool indenting = true;
  const auto here = [&] { return absl::StrFormat("%s:%d:1", name, line); };
  for (const char c : text) {
    if (c == '\n') {
      ++line;
      indenting = true;
      continue;
    }
    if (c == '\t' && indenting) refuse(here(), "a tab in the indentation; use spaces");
    if (absl::ascii_iscntrl(c) && c != '\t' && c != '\r') {
      refuse(here(), absl::StrFormat("control character 0x%02x; save the file as UTF-8 text", c));
    }
    indenting = indenting && c == ' ';
  }
  if (!simdjson::validate_utf8(text.data(), text.size())) {
    refuse(name, "not valid UTF-8; save the file as UTF-8 text");
  }
}

// What the parser of yaml-cpp says, in words for people who do not know its grammar.
std::string parser_message(const YAML::Exception& error) {
  const struct {
    const char *theirs, *ours;
  } wordings[] = {
      {YAML::ErrorMsg::UNKNOWN_ANCHOR,
       "anchors and aliases are not supported; write the value out"},
      {YAML::ErrorMsg::END_OF_SEQ_FLOW, "a list is not closed; add ']'"},
      {YAML::ErrorMsg::END_OF_MAP_FLOW, "a map is not closed; add '}'"},
      {YAML::ErrorMsg::FLOW_END, "this bracket closes nothing; remove it"},
      {YAML::ErrorMsg::EOF_IN_SCALAR, "a text is not closed; add the quote"},
      {YAML::ErrorMsg::UNKNOWN_TOKEN, "no value begins like this; put it in quotes"},
      {YAML::ErrorMsg::MAP_VALUE,
       "a ':' where no key can stand; check the indentation, and the blank after each ':'"},
  };
  for (const auto& wording : wordings) {
    if (error.msg == wording.theirs) return wording.ours;
  }
  return absl::StrFormat("not valid YAML: %s", error.msg);
}

std::string missing_file_hint(const std::filesystem::path& path) {
  std::vector<std::string> siblings;
  std::error_code error;
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (siblings.size() < 1000) siblings.push_back(entry.path().filename().string());
  }
  const auto nearest = nearest_name(path.filename().string(), siblings);
  if (!nearest) return "give the path of a configuration file";
  return absl::StrFormat("did you mean '%s'?", (path.parent_path() / *nearest).string());
}

YamlNode& find_or_add(YamlNode& map, const std::string& key) {
  for (YamlEntry& entry : map.entries) {
    if (entry.key == key) return entry.value;
  }
  map.entries.push_back({key, kCommandLine, yaml_node(YamlNode::Kind::null, kCommandLine)});
  return map.entries.back().value;
}

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  for (const YamlEntry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

YamlNode yaml_node(YamlNode::Kind kind, std::string where) {
  YamlNode node;
  node.kind = kind;
  node.where = std::move(where);
  return node;
}

YamlNode parse_yaml(std::string_view text, const std::string& name) {
  if (static_cast<int64_t>(text.size()) > kYamlMaxBytes) {
    refuse(name,
           absl::StrFormat("larger than %d bytes; a configuration is far smaller", kYamlMaxBytes));
  }
  check_characters(text, name);
  TreeBuilder builder(name);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    // The second call finds the end, or the second document that the builder refuses.
    if (parser.HandleNextDocument(builder)) parser.HandleNextDocument(builder);
  } catch (const YAML::Exception& error) {
    const bool placed = !error.mark.is_null() && name != kCommandLine;
    refuse(placed ? absl::StrFormat("%s:%d:%d", name, error.mark.line + 1, error.mark.column + 1)
                  : name,
           parser_message(error));
  }
  return builder.take();
}

YamlNode load_yaml(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    refuse(path, "is a folder; give a configuration file in it");
  }
  // Reading a pipe could wait forever, on one rank and not on another.
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    refuse(path, "is a pipe or a device; write the configuration to a file and give that");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    const int reason = errno;
    const std::string hint =
        reason == ENOENT ? missing_file_hint(path) : "make it readable for this user";
    refuse(path, absl::StrFormat("%s; %s", std::strerror(reason), hint));
  }
  std::string text(kYamlMaxBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return parse_yaml(text, path);
}

void apply_override(YamlNode& root, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  const std::string path(assignment.substr(0, equals));
  if (equals == std::string_view::npos || path.empty()) {
    refuse(kCommandLine, absl::StrFormat("'%s' is not key=value; write for example "
                                         "train.max_steps=100",
                                         printable(assignment)));
  }
  YamlNode* node = &root;
  for (const absl::string_view part : absl::StrSplit(path, '.')) {
    if (node->kind == YamlNode::Kind::null) {
      *node = yaml_node(YamlNode::Kind::map, kCommandLine);
    }
    if (node->kind != YamlNode::Kind::map) {
      refuse(kCommandLine, absl::StrFormat("'%s' goes into a value that is not a section; "
                                           "give the whole value",
                                           printable(path)));
    }
    node = &find_or_add(*node, std::string(part));
  }
  *node = parse_yaml(assignment.substr(equals + 1), kCommandLine);
  node->where = kCommandLine;
}

}  // namespace caravan
