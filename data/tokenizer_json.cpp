#include "data/tokenizer_json.h"

#include <simdjson.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "absl/container/flat_hash_set.h"
#include "data/durable_file.h"
#include "data/folder_path.h"
#include "data/json_object.h"
#include "data/text_map.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace dom = simdjson::dom;
namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxEntries = size_t{4} << 20;
constexpr size_t kMaxAddedTokenBytes = 4096;
constexpr size_t kMaxSteps = 32;
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A parsed file; elements point into the parser.
struct Document {
  dom::parser parser;
  dom::element root;
};

void parse(std::string_view text, const std::string& path, Document& document) {
  if (text.size() > kMaxFileBytes) throw data_error(path + ": has more than 256 MiB");
  auto error = document.parser.allocate(std::max<size_t>(text.size(), 64), kMaxDepth);
  if (error == simdjson::SUCCESS) {
    error = document.parser.parse(text.data(), text.size()).get(document.root);
  }
  if (error != simdjson::SUCCESS) {
    throw data_error(absl::StrFormat("%s: is no JSON: %s", path, simdjson::error_message(error)));
  }
}

// Names to ids while the file is read, so that merges and other parts can refer to them.
class Vocabulary {
 public:
  void add(const JsonObject& owner, std::string_view key, std::string_view name, int64_t id) {
    if (id < 0 || id > kMaxTokenId) {
      owner.fail(key, absl::StrFormat("gives %s the id %d, which is not in 0..%d",
                                      quoted_part(name), id, kMaxTokenId));
    }
    if (name.empty()) owner.fail(key, "has an entry without a name");
    if (ids_.size() >= kMaxEntries) owner.fail(key, "has more than 4194304 entries");
    if (!ids_.emplace(std::string(name), static_cast<int32_t>(id)).second) {
      owner.fail(key, absl::StrFormat("has %s twice", quoted_part(name)));
    }
    largest_id_ = std::max(largest_id_, static_cast<size_t>(id));
  }
  int32_t find(std::string_view name) const {
    const auto found = ids_.find(name);
    return found == ids_.end() ? -1 : found->second;
  }
  size_t size() const { return ids_.size(); }
  // Names by id. Holes are allowed, but not so many that a small file takes much memory.
  std::vector<std::string> names(const JsonObject& root) const {
    if (largest_id_ > 16 * ids_.size() + 65536) {
      root.fail("model.vocab",
                absl::StrFormat("has the id %d, but only %d entries", largest_id_, ids_.size()));
    }
    std::vector<std::string> names(largest_id_ + 1);
    for (const auto& [name, id] : ids_) {
      std::string& place = names[static_cast<size_t>(id)];
      if (!place.empty()) {
        root.fail("model.vocab", absl::StrFormat("has both %s and %s as %d", quoted_part(place),
                                                 quoted_part(name), id));
      }
      place = name;
    }
    return names;
  }

 private:
  TextMap<std::string, int32_t> ids_;
  size_t largest_id_ = 0;
};

void read_vocabulary(JsonObject& model, Vocabulary& vocabulary) {
  dom::object entries;
  if (model.at("vocab").get(entries) != simdjson::SUCCESS) model.fail("vocab", "is not an object");
  for (const dom::key_value_pair entry : entries) {
    int64_t id = -1;
    if (entry.value.get(id) != simdjson::SUCCESS) {
      model.fail("vocab", absl::StrFormat("has no whole number at %s", quoted_part(entry.key)));
    }
    vocabulary.add(model, "vocab", entry.key, id);
  }
}

// "a b", as older files have it, or ["a", "b"].
std::pair<std::string_view, std::string_view> merge_parts(const JsonObject& model,
                                                          const std::string& key,
                                                          dom::element merge) {
  std::string_view text;
  if (merge.get(text) == simdjson::SUCCESS) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      model.fail(key, absl::StrFormat("is not two names with a space: %s", quoted_part(text)));
    }
    return {text.substr(0, space), text.substr(space + 1)};
  }
  dom::array pair;
  std::string_view left, right;
  if (merge.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
      pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
    model.fail(key, "is not a pair of names");
  }
  return {left, right};
}

void read_merges(JsonObject& model, const Vocabulary& vocabulary, TokenizerJson& result) {
  const dom::array merges = model.array("merges");
  std::string merged;
  size_t number = 0;
  for (const dom::element merge : merges) {
    std::string_view version;
    const bool is_header =
        number == 0 && merge.get(version) == simdjson::SUCCESS && version.starts_with("#version");
    if (is_header) continue;
    if (number >= kMaxEntries) model.fail("merges", "has more than 4194304 entries");
    const auto key = [&] { return absl::StrFormat("merges[%d]", number); };
    const auto [left, right] = merge_parts(model, "merges", merge);
    merged.assign(left).append(right);
    const int32_t left_id = vocabulary.find(left);
    const int32_t right_id = vocabulary.find(right);
    const int32_t merged_id = vocabulary.find(merged);
    if (left_id < 0 || right_id < 0 || merged_id < 0) {
      model.fail(key(), absl::StrFormat("names %s, which is not in the vocabulary",
                                        quoted_part(left_id < 0    ? left
                                                    : right_id < 0 ? right
                                                                   : std::string_view(merged))));
    }
    result.merges.push_back({left_id, right_id});
    result.merged.push_back(merged_id);
    ++number;
  }
}

void read_model(JsonObject model, Vocabulary& vocabulary, TokenizerJson& result) {
  // Oldest files leave the type out; only a BPE has merges.
  const std::string type = model.find("type") ? model.text("type") : "BPE";
  if (type != "BPE")
    model.fail("type", absl::StrFormat("is %s; BPE is supported", quoted_part(type)));
  for (const char* key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    model.must_be_off(key);
  }
  // Every byte is an entry (BpeModel checks it), so that nothing is ever unknown.
  model.ignore("unk_token");
  model.ignore("fuse_unk");
  result.ignore_merges = model.boolean("ignore_merges", false);
  read_vocabulary(model, vocabulary);
  read_merges(model, vocabulary, result);
  model.finish();
}

void read_added_tokens(JsonObject& root, Vocabulary& vocabulary, TokenizerJson& result) {
  if (!root.find("added_tokens")) return;
  absl::flat_hash_set<int32_t> ids;
  auto next_id = static_cast<int32_t>(vocabulary.size());
  size_t number = 0;
  for (const dom::element element : root.array("added_tokens")) {
    JsonObject fields(root.path(), absl::StrFormat("added_tokens[%d]", number++), element);
    AddedToken token{.id = fields.id("id"),
                     .content = fields.text("content"),
                     .single_word = fields.boolean("single_word", false),
                     .lstrip = fields.boolean("lstrip", false),
                     .rstrip = fields.boolean("rstrip", false),
                     .normalized = fields.boolean("normalized", true),
                     .special = fields.boolean("special", false)};
    fields.finish();
    if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
      fields.fail("content", "is empty or longer than 4096 bytes");
    }
    // Libraries number what the vocabulary has not from its size on, whatever the file says.
    const int32_t known = vocabulary.find(token.content);
    const int32_t expected = known >= 0 ? known : next_id;
    if (token.id != expected) {
      fields.fail("id", absl::StrFormat("is %d, but %s is %d by its place in the vocabulary",
                                        token.id, quoted_part(token.content), expected));
    }
    if (known < 0) vocabulary.add(fields, "id", token.content, token.id);
    next_id = std::max(next_id, token.id + 1);
    if (!ids.insert(token.id).second) fields.fail("id", "is there twice");
    result.added_tokens.push_back(std::move(token));
  }
}

// A regular expression that matches just this text.
std::string escaped(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const bool is_letter = byte >= 0x80 || std::isalnum(byte) != 0 || byte <= ' ' || byte == 0x7F;
    if (!is_letter) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

PretokenizerStep read_split(JsonObject& split) {
  JsonObject pattern = split.object("pattern");
  const bool is_regex = pattern.find("Regex").has_value();
  const std::string text = is_regex ? pattern.text("Regex") : pattern.text("String");
  pattern.finish();
  const std::string behavior = split.text("behavior");
  if (behavior != "Isolated" && behavior != "Removed") {
    split.fail("behavior",
               absl::StrFormat("is %s; Isolated and Removed are supported", quoted_part(behavior)));
  }
  split.must_be_off("invert");
  if (text.empty()) split.fail("pattern", "is empty");
  return {.pattern = is_regex ? text : escaped(text),
          .removes = behavior == "Removed",
          .where = split.place("pattern")};
}

void read_byte_level(JsonObject& level, std::vector<PretokenizerStep>& steps) {
  level.ignore("trim_offsets");  // of offsets, which there are none here
  if (level.boolean("add_prefix_space")) {
    steps.push_back({.kind = PretokenizerKind::prefix_space, .pattern = "", .where = ""});
  }
  if (level.boolean("use_regex", true)) {
    steps.push_back({.pattern = kGpt2Pattern, .where = level.place("use_regex")});
  }
}

// Returns whether it was ByteLevel, after which nothing may come: later steps would see bytes.
bool read_pretokenizer(JsonObject step, std::vector<PretokenizerStep>& steps) {
  const std::string type = step.text("type");
  bool is_byte_level = false;
  if (type == "Split") {
    steps.push_back(read_split(step));
  } else if (type == "Digits") {
    const bool individual = step.boolean("individual_digits");
    steps.push_back({.pattern = individual ? R"(\p{N})" : R"(\p{N}+)", .where = step.place("")});
  } else if (type == "ByteLevel") {
    read_byte_level(step, steps);
    is_byte_level = true;
  } else if (type == "Sequence") {
    size_t number = 0;
    for (const dom::element element : step.array("pretokenizers")) {
      const std::string where = absl::StrFormat("%s[%d]", step.place("pretokenizers"), number++);
      if (is_byte_level) step.fail("pretokenizers", "has steps after ByteLevel");
      is_byte_level = read_pretokenizer(JsonObject(step.path(), where, element), steps);
      if (steps.size() > kMaxSteps) step.fail("pretokenizers", "has too many steps");
    }
  } else {
    step.fail("type", absl::StrFormat("is %s; Split, Digits, ByteLevel and Sequence are supported",
                                      quoted_part(type)));
  }
  step.finish();
  return is_byte_level;
}

void read_normalizer(JsonObject& root) {
  if (!root.find("normalizer")) return;
  JsonObject normalizer = root.object("normalizer");
  const std::string type = normalizer.text("type");
  if (type != "Sequence") {
    normalizer.fail("type", absl::StrFormat("is %s, which would change text; none is supported",
                                            quoted_part(type)));
  }
  normalizer.must_be_off("normalizers");
  normalizer.finish();
}

void append_special(JsonObject& processor, const std::string& name, const Vocabulary& vocabulary,
                    std::vector<int32_t>& ids) {
  JsonObject token = processor.object("special_tokens").object(name);
  token.ignore("id");
  token.ignore("tokens");
  for (const dom::element element : token.array("ids")) {
    int64_t id = -1;
    if (element.get(id) != simdjson::SUCCESS || id < 0 || id > kMaxTokenId) {
      token.fail("ids", "is not a list of ids");
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  token.finish();
  if (vocabulary.find(name) < 0) {
    processor.fail("special_tokens", quoted_part(name) + " is no token");
  }
}

void read_template(JsonObject& processor, const Vocabulary& vocabulary, TokenizerJson& result) {
  std::vector<int32_t> before, after;
  bool is_after = false;
  for (const dom::element element : processor.array("single")) {
    JsonObject item(processor.path(), processor.place("single"), element);
    const bool is_sequence = item.find("Sequence").has_value();
    JsonObject value = item.object(is_sequence ? "Sequence" : "SpecialToken");
    value.ignore("type_id");
    const std::string id = value.text("id");
    value.finish();
    item.finish();
    if (!is_sequence) {
      append_special(processor, id, vocabulary, is_after ? after : before);
    } else if (is_after || id != "A") {
      processor.fail("single", "has another sequence than one A");
    } else {
      is_after = true;
    }
  }
  if (!is_after) processor.fail("single", "has no sequence A");
  processor.ignore("pair");
  processor.ignore("special_tokens");
  result.prefix_ids.insert(result.prefix_ids.begin(), before.begin(), before.end());
  result.suffix_ids.insert(result.suffix_ids.end(), after.begin(), after.end());
}

void read_post_processor(JsonObject processor, const Vocabulary& vocabulary,
                         TokenizerJson& result) {
  const std::string type = processor.text("type");
  if (type == "ByteLevel") {  // trims offsets only
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) processor.ignore(key);
  } else if (type == "TemplateProcessing") {
    read_template(processor, vocabulary, result);
  } else if (type == "Sequence") {
    for (const dom::element element : processor.array("processors")) {
      read_post_processor(JsonObject(processor.path(), processor.place("processors"), element),
                          vocabulary, result);
    }
  } else {
    processor.fail("type", absl::StrFormat("is %s; TemplateProcessing, ByteLevel and Sequence are "
                                           "supported",
                                           quoted_part(type)));
  }
  processor.finish();
}

void check_decoder(JsonObject decoder) {
  const std::string type = decoder.text("type");
  if (type != "ByteLevel") {
    decoder.fail("type", absl::StrFormat("is %s; ByteLevel is supported", quoted_part(type)));
  }
  for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) decoder.ignore(key);
  decoder.finish();
}

void check_ids(const JsonObject& root, const std::vector<int32_t>& ids, size_t vocab_size) {
  for (const int32_t id : ids) {
    if (static_cast<size_t>(id) < vocab_size) continue;
    root.fail("post_processor", absl::StrFormat("has the id %d, which is no token", id));
  }
}

bool has_byte_level(dom::element pretokenizer, int depth = 0) {
  std::string_view type;
  if (pretokenizer["type"].get(type) != simdjson::SUCCESS) return false;
  if (type == "ByteLevel") return true;
  dom::array parts;
  if (depth > 8 || pretokenizer["pretokenizers"].get(parts) != simdjson::SUCCESS) return false;
  return std::any_of(parts.begin(), parts.end(),
                     [&](dom::element part) { return has_byte_level(part, depth + 1); });
}

std::string why_not(dom::element root, const std::string& path) {
  std::string_view type = "BPE";
  dom::element pretokenizer;
  std::ignore = root["model"]["type"].get(type);
  if (type != "BPE") {
    return absl::StrFormat(
        "%s: model.type is %s; byte-level BPE is supported, or a "
        "tokenizer.model beside it",
        path, quoted_part(type));
  }
  if (root["pre_tokenizer"].get(pretokenizer) == simdjson::SUCCESS &&
      has_byte_level(pretokenizer)) {
    return "";
  }
  return path +
         ": pre_tokenizer has no ByteLevel; byte-level BPE is supported, or a "
         "tokenizer.model beside it";
}

// A name of a token: text, or an object with it as "content".
std::string token_name(dom::element root, const char* key) {
  std::string_view name;
  if (root[key].get(name) != simdjson::SUCCESS) {
    std::ignore = root[key]["content"].get(name);
  }
  return std::string(name);
}

int32_t token_number(dom::element root, const char* key) {
  int64_t id = -1;
  if (root[key].get(id) != simdjson::SUCCESS) std::ignore = root[key].at(0).get(id);
  return id >= 0 && id <= kMaxTokenId ? static_cast<int32_t>(id) : -1;
}

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& path) {
  Document document;
  parse(text, path, document);
  const std::string reason = why_not(document.root, path);
  if (!reason.empty()) throw data_error(reason);
  JsonObject root(path, "", document.root);
  root.ignore("version");
  root.must_be_off("truncation");
  root.must_be_off("padding");
  read_normalizer(root);
  TokenizerJson result;
  Vocabulary vocabulary;
  read_model(root.object("model"), vocabulary, result);
  read_added_tokens(root, vocabulary, result);
  if (!read_pretokenizer(root.object("pre_tokenizer"), result.steps)) {
    root.fail("pre_tokenizer", "does not end with ByteLevel");
  }
  if (root.find("post_processor")) {
    read_post_processor(root.object("post_processor"), vocabulary, result);
  }
  check_decoder(root.object("decoder"));
  root.finish();
  result.names = vocabulary.names(root);
  check_ids(root, result.prefix_ids, result.names.size());
  check_ids(root, result.suffix_ids, result.names.size());
  return result;
}

std::string why_not_byte_level(const std::string& path) {
  Document document;
  parse(read_file(path, kMaxFileBytes, ExitCode::data), path, document);
  return why_not(document.root, path);
}

TokenNames read_token_names(const std::string& folder) {
  TokenNames names;
  for (const char* name : {"tokenizer_config.json", "generation_config.json", "config.json"}) {
    const std::string path = (fs::path(folder) / name).string();
    if (!find_inside(folder.empty() ? "." : folder, name, ExitCode::data)) continue;
    Document document;
    parse(read_file(path, kMaxFileBytes, ExitCode::data), path, document);
    if (name == std::string_view("tokenizer_config.json")) {
      names.bos = token_name(document.root, "bos_token");
      names.eos = token_name(document.root, "eos_token");
    } else {
      if (names.bos_id < 0) names.bos_id = token_number(document.root, "bos_token_id");
      if (names.eos_id < 0) names.eos_id = token_number(document.root, "eos_token_id");
    }
  }
  return names;
}

}  // namespace caravan
