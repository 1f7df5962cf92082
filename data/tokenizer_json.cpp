#include "data/tokenizer_json.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "absl/container/flat_hash_set.h"
#include "data/durable_file.h"
#include "data/folder_path.h"
#include "data/text_map.h"
#include "runtime/error.h"
#include "runtime/json.h"

namespace caravan {
namespace {

namespace dom = simdjson::dom;
namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxEntries = size_t{4} << 20;
constexpr size_t kMaxAddedTokenBytes = 4096;
constexpr size_t kMaxSteps = 32;
constexpr int32_t kMaxTokenId = (8 << 20) - 1;
constexpr IntegerRange kTokenIds = {0, kMaxTokenId};
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

JsonText parse(std::string_view text, const std::string& path) {
  if (text.size() > kMaxFileBytes) throw data_error(path + ": has more than 256 MiB");
  return JsonText(text, kMaxDepth, path, ExitCode::data);
}

// The key must be absent, null or what does nothing: false, "" or an empty list.
void must_be_off(JsonKeys& keys, std::string_view key) {
  const auto element = keys.take(key);
  if (!element) return;
  std::string_view text;
  bool flag = true;
  dom::array list;
  const bool is_off = (element->get(text) == simdjson::SUCCESS && text.empty()) ||
                      (element->get(flag) == simdjson::SUCCESS && !flag) ||
                      (element->get(list) == simdjson::SUCCESS && list.size() == 0);
  if (!is_off) keys.refuse(key, "null: it is not supported here");
}

// Keys that are known and do not matter.
void ignore(JsonKeys& keys, std::initializer_list<const char*> names) {
  for (const char* name : names) keys.take(name);
}

[[noreturn]] void refuse_type(const JsonKeys& keys, const std::string& type,
                              const std::string& known) {
  keys.fail_at("type", absl::StrFormat("is %s; %s", in_quotes(type), known));
}

// Names to ids while the file is read, so that merges and other parts can refer to them.
class Vocabulary {
 public:
  void add(const JsonKeys& owner, std::string_view key, std::string_view name, int64_t id) {
    if (id < 0 || id > kMaxTokenId) {
      owner.fail_at(key, absl::StrFormat("gives %s the id %d, which is not in 0..%d",
                                         in_quotes(name), id, kMaxTokenId));
    }
    if (name.empty()) owner.fail_at(key, "has an entry without a name");
    if (ids_.size() >= kMaxEntries) owner.fail_at(key, "has more than 4194304 entries");
    if (!ids_.emplace(std::string(name), static_cast<int32_t>(id)).second) {
      owner.fail_at(key, absl::StrFormat("has %s twice", in_quotes(name)));
    }
    largest_id_ = std::max(largest_id_, static_cast<size_t>(id));
  }
  int32_t find(std::string_view name) const {
    const auto found = ids_.find(name);
    return found == ids_.end() ? -1 : found->second;
  }
  size_t size() const { return ids_.size(); }
  // Names by id. Holes are allowed, but not so many that a small file takes much memory.
  std::vector<std::string> names(const JsonKeys& root) const {
    if (largest_id_ > 16 * ids_.size() + 65536) {
      root.fail_at("model.vocab",
                   absl::StrFormat("has the id %d, but only %d entries", largest_id_, ids_.size()));
    }
    std::vector<std::string> names(largest_id_ + 1);
    for (const auto& [name, id] : ids_) {
      std::string& place = names[static_cast<size_t>(id)];
      if (!place.empty()) {
        root.fail_at("model.vocab", absl::StrFormat("has both %s and %s as %d", in_quotes(place),
                                                    in_quotes(name), id));
      }
      place = name;
    }
    return names;
  }

 private:
  TextMap<std::string, int32_t> ids_;
  size_t largest_id_ = 0;
};

void read_vocabulary(JsonKeys& model, Vocabulary& vocabulary) {
  for (const dom::key_value_pair entry : model.need_entries("vocab")) {
    int64_t id = -1;
    if (entry.value.get(id) != simdjson::SUCCESS) {
      model.fail_at("vocab", absl::StrFormat("has no whole number at %s", in_quotes(entry.key)));
    }
    vocabulary.add(model, "vocab", entry.key, id);
  }
}

// "a b", as older files have it, or ["a", "b"].
std::pair<std::string_view, std::string_view> merge_parts(const JsonKeys& model,
                                                          const std::string& key,
                                                          dom::element merge) {
  std::string_view text;
  if (merge.get(text) == simdjson::SUCCESS) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
      model.fail_at(key, absl::StrFormat("is not two names with a space: %s", in_quotes(text)));
    }
    return {text.substr(0, space), text.substr(space + 1)};
  }
  dom::array pair;
  std::string_view left, right;
  if (merge.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
      pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
    model.fail_at(key, "is not a pair of names");
  }
  return {left, right};
}

void read_merges(JsonKeys& model, const Vocabulary& vocabulary, TokenizerJson& result) {
  std::string merged;
  size_t number = 0;
  for (const dom::element merge : model.need_list("merges")) {
    std::string_view version;
    const bool is_header =
        number == 0 && merge.get(version) == simdjson::SUCCESS && version.starts_with("#version");
    if (is_header) continue;
    if (number >= kMaxEntries) model.fail_at("merges", "has more than 4194304 entries");
    const auto key = [&] { return absl::StrFormat("merges[%d]", number); };
    const auto [left, right] = merge_parts(model, "merges", merge);
    merged.assign(left).append(right);
    const int32_t left_id = vocabulary.find(left);
    const int32_t right_id = vocabulary.find(right);
    const int32_t merged_id = vocabulary.find(merged);
    if (left_id < 0 || right_id < 0 || merged_id < 0) {
      model.fail_at(key(), absl::StrFormat("names %s, which is not in the vocabulary",
                                           in_quotes(left_id < 0    ? left
                                                     : right_id < 0 ? right
                                                                    : std::string_view(merged))));
    }
    result.merges.push_back({left_id, right_id});
    result.merged.push_back(merged_id);
    ++number;
  }
}

void read_model(JsonKeys model, Vocabulary& vocabulary, TokenizerJson& result) {
  // Oldest files leave the type out; only a BPE has merges.
  const std::string type = model.text("type").value_or("BPE");
  if (type != "BPE") refuse_type(model, type, "BPE is supported");
  for (const char* key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    must_be_off(model, key);
  }
  // Every byte is an entry (BpeModel checks it), so that nothing is ever unknown.
  ignore(model, {"unk_token", "fuse_unk"});
  result.ignore_merges = model.boolean("ignore_merges").value_or(false);
  read_vocabulary(model, vocabulary);
  read_merges(model, vocabulary, result);
  model.finish();
}

AddedToken read_added_token(JsonKeys& keys) {
  AddedToken token{.id = static_cast<int32_t>(keys.need_integer("id", kTokenIds)),
                   .content = keys.need_text("content"),
                   .single_word = keys.boolean("single_word").value_or(false),
                   .lstrip = keys.boolean("lstrip").value_or(false),
                   .rstrip = keys.boolean("rstrip").value_or(false),
                   .normalized = keys.boolean("normalized").value_or(true),
                   .special = keys.boolean("special").value_or(false)};
  keys.finish();
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    keys.fail_at("content", "is empty or longer than 4096 bytes");
  }
  return token;
}

void read_added_tokens(JsonKeys& root, Vocabulary& vocabulary, TokenizerJson& result) {
  if (!root.take("added_tokens")) return;
  absl::flat_hash_set<int32_t> ids;
  auto next_id = static_cast<int32_t>(vocabulary.size());
  root.each("added_tokens", [&](JsonKeys keys) {
    AddedToken token = read_added_token(keys);
    // Libraries number what the vocabulary has not from its size on, whatever the file says.
    const int32_t known = vocabulary.find(token.content);
    const int32_t expected = known >= 0 ? known : next_id;
    if (token.id != expected) {
      keys.fail_at("id", absl::StrFormat("is %d, but %s is %d by its place in the vocabulary",
                                         token.id, in_quotes(token.content), expected));
    }
    if (known < 0) vocabulary.add(keys, "id", token.content, token.id);
    next_id = std::max(next_id, token.id + 1);
    if (!ids.insert(token.id).second) keys.fail_at("id", "is there twice");
    result.added_tokens.push_back(std::move(token));
  });
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

PretokenizerStep read_split(JsonKeys& split) {
  JsonKeys pattern = split.need_object("pattern");
  const auto regex = pattern.text("Regex");
  const std::string text = regex ? *regex : pattern.need_text("String");
  pattern.finish();
  const std::string behavior = split.need_text("behavior");
  if (behavior != "Isolated" && behavior != "Removed") {
    split.refuse("behavior", "Isolated or Removed: others are not supported");
  }
  must_be_off(split, "invert");
  if (text.empty()) split.fail_at("pattern", "is empty");
  return {.pattern = regex ? text : escaped(text),
          .removes = behavior == "Removed",
          .where = split.path_of("pattern")};
}

void read_byte_level(JsonKeys& level, std::vector<PretokenizerStep>& steps) {
  ignore(level, {"trim_offsets"});  // of offsets, which there are none here
  if (level.need_boolean("add_prefix_space")) {
    steps.push_back({.kind = PretokenizerKind::prefix_space, .pattern = "", .where = ""});
  }
  if (level.boolean("use_regex").value_or(true)) {
    steps.push_back({.pattern = kGpt2Pattern, .where = level.path_of("use_regex")});
  }
}

// Returns whether it was ByteLevel, after which nothing may come: later steps would see bytes.
bool read_pretokenizer(JsonKeys step, std::vector<PretokenizerStep>& steps) {
  const std::string type = step.need_text("type");
  bool is_byte_level = false;
  if (type == "Split") {
    steps.push_back(read_split(step));
  } else if (type == "Digits") {
    const bool individual = step.need_boolean("individual_digits");
    steps.push_back({.pattern = individual ? R"(\p{N})" : R"(\p{N}+)",
                     .where = step.path_of("individual_digits")});
  } else if (type == "ByteLevel") {
    read_byte_level(step, steps);
    is_byte_level = true;
  } else if (type == "Sequence") {
    step.each("pretokenizers", [&](JsonKeys part) {
      if (is_byte_level) step.fail_at("pretokenizers", "has steps after ByteLevel");
      is_byte_level = read_pretokenizer(std::move(part), steps);
      if (steps.size() > kMaxSteps) step.fail_at("pretokenizers", "has too many steps");
    });
  } else {
    refuse_type(step, type, "Split, Digits, ByteLevel and Sequence are supported");
  }
  step.finish();
  return is_byte_level;
}

void read_normalizer(JsonKeys& root) {
  auto normalizer = root.object("normalizer");
  if (!normalizer) return;
  const std::string type = normalizer->need_text("type");
  if (type != "Sequence") {
    normalizer->fail_at("type", absl::StrFormat("is %s, which would change text; none is supported",
                                                in_quotes(type)));
  }
  must_be_off(*normalizer, "normalizers");
  normalizer->finish();
}

void append_special(JsonKeys token, const std::string& name, const Vocabulary& vocabulary,
                    std::vector<int32_t>& ids) {
  ignore(token, {"id", "tokens"});
  for (const int64_t id : token.need_integers("ids", kTokenIds)) {
    ids.push_back(static_cast<int32_t>(id));
  }
  token.finish();
  if (vocabulary.find(name) < 0) token.fail("is for no token");
}

void read_template(JsonKeys& processor, const Vocabulary& vocabulary, TokenizerJson& result) {
  std::vector<int32_t> before, after;
  bool is_after = false;
  auto special_tokens = processor.object("special_tokens");
  processor.each("single", [&](JsonKeys item) {
    const bool is_sequence = item.take("Sequence").has_value();
    JsonKeys value = item.need_object(is_sequence ? "Sequence" : "SpecialToken");
    ignore(value, {"type_id"});
    const std::string id = value.need_text("id");
    value.finish();
    item.finish();
    if (!is_sequence) {
      if (!special_tokens) processor.refuse("special_tokens", "an object");
      append_special(special_tokens->need_object(id), id, vocabulary, is_after ? after : before);
    } else if (is_after || id != "A") {
      processor.fail_at("single", "has another sequence than one A");
    } else {
      is_after = true;
    }
  });
  if (!is_after) processor.fail_at("single", "has no sequence A");
  ignore(processor, {"pair"});
  result.prefix_ids.insert(result.prefix_ids.begin(), before.begin(), before.end());
  result.suffix_ids.insert(result.suffix_ids.end(), after.begin(), after.end());
}

void read_post_processor(JsonKeys processor, const Vocabulary& vocabulary, TokenizerJson& result) {
  const std::string type = processor.need_text("type");
  if (type == "ByteLevel") {  // trims offsets only
    ignore(processor, {"add_prefix_space", "trim_offsets", "use_regex"});
  } else if (type == "TemplateProcessing") {
    read_template(processor, vocabulary, result);
  } else if (type == "Sequence") {
    processor.each("processors", [&](JsonKeys part) {
      read_post_processor(std::move(part), vocabulary, result);
    });
  } else {
    refuse_type(processor, type, "TemplateProcessing, ByteLevel and Sequence are supported");
  }
  processor.finish();
}

void check_decoder(JsonKeys decoder) {
  const std::string type = decoder.need_text("type");
  if (type != "ByteLevel") refuse_type(decoder, type, "ByteLevel is supported");
  ignore(decoder, {"add_prefix_space", "trim_offsets", "use_regex"});
  decoder.finish();
}

void check_ids(const JsonKeys& root, const std::vector<int32_t>& ids, size_t vocab_size) {
  for (const int32_t id : ids) {
    if (static_cast<size_t>(id) < vocab_size) continue;
    root.fail_at("post_processor", absl::StrFormat("has the id %d, which is no token", id));
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
        path, in_quotes(type));
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
std::string token_name(const JsonText& document, JsonKeys& keys, const char* key) {
  const auto element = keys.take(key);
  if (!element) return "";
  std::string_view name;
  if (element->get(name) == simdjson::SUCCESS) return std::string(name);
  if (!element->is_object()) keys.refuse(key, "the name of a token");
  return JsonKeys(document, *element, key).need_text("content");
}

void read_tokenizer_config(const JsonText& document, TokenNames& names) {
  JsonKeys keys = document.keys();
  names.bos = token_name(document, keys, "bos_token");
  names.eos = token_name(document, keys, "eos_token");
  names.adds_bos = keys.boolean("add_bos_token");
  names.adds_eos = keys.boolean("add_eos_token");
  names.adds_prefix_space = keys.boolean("add_prefix_space");
  if (keys.boolean("do_lower_case").value_or(false)) {
    keys.refuse("do_lower_case", "false: text is encoded as it is");
  }
  const std::string kind = keys.text("tokenizer_class").value_or("");
  names.is_llama = kind == "LlamaTokenizer" || kind == "LlamaTokenizerFast";
}

int32_t token_number(dom::element root, const char* key) {
  int64_t id = -1;
  if (root[key].get(id) != simdjson::SUCCESS) std::ignore = root[key].at(0).get(id);
  return id >= 0 && id <= kMaxTokenId ? static_cast<int32_t>(id) : -1;
}

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& path) {
  const JsonText document = parse(text, path);
  const std::string reason = why_not(document.root(), path);
  if (!reason.empty()) throw data_error(reason);
  JsonKeys root = document.keys();
  ignore(root, {"version"});
  must_be_off(root, "truncation");
  must_be_off(root, "padding");
  read_normalizer(root);
  TokenizerJson result;
  Vocabulary vocabulary;
  read_model(root.need_object("model"), vocabulary, result);
  read_added_tokens(root, vocabulary, result);
  if (!read_pretokenizer(root.need_object("pre_tokenizer"), result.steps)) {
    root.fail_at("pre_tokenizer", "does not end with ByteLevel");
  }
  if (auto processor = root.object("post_processor")) {
    read_post_processor(*std::move(processor), vocabulary, result);
  }
  check_decoder(root.need_object("decoder"));
  root.finish();
  result.names = vocabulary.names(root);
  check_ids(root, result.prefix_ids, result.names.size());
  check_ids(root, result.suffix_ids, result.names.size());
  return result;
}

std::string why_not_byte_level(const std::string& path) {
  const JsonText document = parse(read_file(path, kMaxFileBytes, ExitCode::data), path);
  return why_not(document.root(), path);
}

TokenNames read_token_names(const std::string& folder) {
  TokenNames names;
  for (const char* name : {"tokenizer_config.json", "generation_config.json", "config.json"}) {
    const std::string path = (fs::path(folder) / name).string();
    if (!find_inside(folder.empty() ? "." : folder, name, ExitCode::data)) continue;
    const JsonText document = parse(read_file(path, kMaxFileBytes, ExitCode::data), path);
    if (name == std::string_view("tokenizer_config.json")) {
      read_tokenizer_config(document, names);
    } else {
      if (names.bos_id < 0) names.bos_id = token_number(document.root(), "bos_token_id");
      if (names.eos_id < 0) names.eos_id = token_number(document.root(), "eos_token_id");
    }
  }
  return names;
}

}  // namespace caravan
