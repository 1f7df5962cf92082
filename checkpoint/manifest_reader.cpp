// Reads manifests with simdjson's DOM parser, which validates the whole text. Nothing in the text
// is believed: every field is fetched by kind, with a message that names it.
#include <simdjson.h>

#include <charconv>
#include <cmath>
#include <limits>

#include "checkpoint/crc32c.h"
#include "checkpoint/manifest.h"
#include "checkpoint/posix_file.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace dom = simdjson::dom;

// A JSON object and where it stands, for messages.
class Fields {
 public:
  Fields(const std::string& origin, const std::string& where, dom::element element)
      : origin_(origin), where_(where) {
    if (element.get(object_) != simdjson::SUCCESS) fail("", "is not an object");
  }

  [[noreturn]] void fail(const std::string& field, const std::string& what) const {
    const std::string dot = where_.empty() || field.empty() ? "" : ".";
    throw checkpoint_error(
        absl::StrFormat("%s: field '%s%s%s' %s", origin_, where_, dot, field, what));
  }

  template <typename T>
  T get(const char* field, const char* kind) const {
    dom::element element;
    if (object_.at_key(field).get(element) != simdjson::SUCCESS) fail(field, "is missing");
    T value;
    if (element.get(value) != simdjson::SUCCESS) fail(field, std::string("is not ") + kind);
    return value;
  }

  std::string text(const char* field) const {
    return std::string(get<std::string_view>(field, "text"));
  }
  int64_t integer(const char* field) const { return get<int64_t>(field, "an integer"); }

  uint32_t checksum(const char* field) const {
    const std::vector<uint32_t> one = checksums(field);
    if (one.size() != 1) fail(field, "is not 8 hex digits");
    return one.front();
  }

  // Any number of them, one after the other.
  std::vector<uint32_t> checksums(const char* field) const {
    const auto text = get<std::string_view>(field, "text");
    std::vector<uint32_t> result(text.size() / 8);
    for (size_t i = 0; i < result.size(); ++i) {
      const char* const begin = text.data() + 8 * i;
      const auto [end, error] = std::from_chars(begin, begin + 8, result[i], 16);
      if (error != std::errc{} || end != begin + 8) fail(field, "is not of hex digits");
    }
    const bool is_plain = text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
    if (text.size() % 8 != 0 || !is_plain) fail(field, "is not 8 hex digits a checksum");
    return result;
  }

  Shape shape(const char* field) const {
    Shape result;
    for (const dom::element element : get<dom::array>(field, "a list")) {
      int64_t size = 0;
      if (element.get(size) != simdjson::SUCCESS) fail(field, "is not a list of integers");
      result.push_back(size);
    }
    return result;
  }

  // Calls add(fields of the element) for each element of a list of objects.
  template <typename Add>
  void each(const char* field, const Add& add) const {
    int64_t index = 0;
    for (const dom::element element : get<dom::array>(field, "a list")) {
      add(Fields(origin_, absl::StrFormat("%s[%d]", field, index++), element));
    }
  }

  bool has(const char* field) const {
    return object_.at_key(field).error() != simdjson::NO_SUCH_FIELD;
  }

  // An object whose values are all read by `value`, which says whether it could.
  template <typename T, typename Value>
  std::map<std::string, T> map(const char* field, const Value& value) const {
    std::map<std::string, T> result;
    for (const dom::key_value_pair entry : get<dom::object>(field, "an object")) {
      if (!value(entry.value, result[std::string(entry.key)])) {
        fail(field, "has a value of the wrong kind");
      }
    }
    return result;
  }

 private:
  const std::string& origin_;
  std::string where_;
  dom::object object_;
};

bool decode_integer(dom::element element, int64_t& value) {
  return element.get(value) == simdjson::SUCCESS;
}

bool decode_text(dom::element element, std::string& value) {
  std::string_view view;
  if (element.get(view) != simdjson::SUCCESS) return false;
  value = std::string(view);
  return true;
}

bool decode_scalar(dom::element element, double& value) {
  if (element.get(value) == simdjson::SUCCESS) return true;
  std::string_view word;
  if (element.get(word) != simdjson::SUCCESS) return false;
  if (word == "nan") value = std::numeric_limits<double>::quiet_NaN();
  if (word == "inf") value = std::numeric_limits<double>::infinity();
  if (word == "-inf") value = -std::numeric_limits<double>::infinity();
  return word == "nan" || word == "inf" || word == "-inf";
}

bool decode_series(dom::element element, std::vector<double>& values) {
  dom::array list;
  if (element.get(list) != simdjson::SUCCESS) return false;
  for (const dom::element entry : list) {
    if (!decode_scalar(entry, values.emplace_back())) return false;
  }
  return true;
}

DType decode_dtype(const Fields& fields) {
  const std::string text = fields.text("dtype");
  for (const DType dtype : kDTypes) {
    if (text == name(dtype)) return dtype;
  }
  fields.fail("dtype", "is none of f32, bf16, i32");
}

FileRecord decode_file(const Fields& fields) {
  return {fields.text("name"), fields.integer("size_bytes"), fields.checksum("frame_crc32c")};
}

// Checkpoints of earlier versions have none.
std::vector<FileRecord> decode_assets(const Fields& fields) {
  std::vector<FileRecord> assets;
  if (!fields.has("assets")) return assets;
  fields.each("assets", [&](const Fields& file) { assets.push_back(decode_file(file)); });
  return assets;
}

ShardRecord decode_shard(const Fields& fields) {
  return {.box = {fields.shape("offset"), fields.shape("extent")},
          .file = fields.text("file"),
          .offset_bytes = fields.integer("offset_bytes"),
          .crc32c = fields.checksums("crc32c")};
}

std::vector<TensorRecord> decode_tensors(const Fields& fields) {
  std::vector<TensorRecord> tensors;
  fields.each("tensors", [&](const Fields& entry) {
    TensorRecord tensor{entry.text("name"), decode_dtype(entry), entry.shape("shape"), {}};
    entry.each("shards",
               [&](const Fields& shard) { tensor.shards.push_back(decode_shard(shard)); });
    tensors.push_back(std::move(tensor));
  });
  return tensors;
}

CheckpointHeader decode_header(const Fields& fields) {
  return {.run_id = fields.text("run_id"),
          .step = fields.integer("step"),
          .tokens = fields.integer("tokens"),
          .config_hash = fields.text("config_hash"),
          .tool_version = fields.text("tool_version"),
          .unix_time = fields.integer("unix_time"),
          .layout = fields.map<int64_t>("layout", decode_integer),
          .counters = fields.map<int64_t>("counters", decode_integer),
          .scalars = fields.map<double>("scalars", decode_scalar),
          .series = fields.map<std::vector<double>>("series", decode_series),
          .texts = fields.map<std::string>("texts", decode_text)};
}

dom::element parse(dom::parser& parser, const std::string& text, const std::string& origin) {
  dom::element root;
  const simdjson::error_code error = parser.parse(text).get(root);
  if (error != simdjson::SUCCESS) {
    throw checkpoint_error(
        absl::StrFormat("%s: not valid JSON: %s", origin, simdjson::error_message(error)));
  }
  return root;
}

// The checksum stands in the last line of a fixed form, so it can be checked before parsing.
void check_own_checksum(const std::string& text, const std::string& origin) {
  const size_t tail_bytes = absl::StrFormat("\"crc32c\": \"%08x\"\n}\n", 0).size();
  if (text.size() < tail_bytes) throw checkpoint_error(origin + ": truncated");
  const size_t body_bytes = text.size() - tail_bytes;
  const uint32_t crc = crc32c(text.data(), body_bytes);
  if (text.substr(body_bytes) != absl::StrFormat("\"crc32c\": \"%08x\"\n}\n", crc)) {
    throw checkpoint_error(origin + ": damaged (its checksum does not match its content)");
  }
}

}  // namespace

Manifest decode_manifest(const std::string& text, const std::string& origin) {
  check_own_checksum(text, origin);
  dom::parser parser;
  const Fields fields(origin, "", parse(parser, text, origin));
  const int64_t format = fields.integer("format");
  if (format != kManifestFormat) {
    fields.fail("format", absl::StrFormat("is %d; this program reads %d", format, kManifestFormat));
  }
  Manifest manifest{.header = decode_header(fields), .files = {}, .tensors = {}};
  fields.each("files", [&](const Fields& file) { manifest.files.push_back(decode_file(file)); });
  manifest.tensors = decode_tensors(fields);
  manifest.assets = decode_assets(fields);
  validate(manifest, origin);
  return manifest;
}

RankReport decode_rank_report(const std::string& text, const std::string& origin) {
  dom::parser parser;
  const Fields fields(origin, "", parse(parser, text, origin));
  return {.error = fields.text("error"),
          .file = decode_file(Fields(origin, "file", fields.get<dom::element>("file", "there"))),
          .tensors = decode_tensors(fields),
          .assets = decode_assets(fields)};
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  return decode_manifest(read_small_file(path, kMaxManifestBytes), path);
}

}  // namespace caravan
