// Reads manifests and the reports of ranks. Nothing in the text is believed: every key is fetched
// by kind, with a message that names it. Keys that are not known are passed over: a later version
// of the same format may write more.

#include <charconv>
#include <cmath>
#include <limits>

#include "checkpoint/crc32c.h"
#include "checkpoint/manifest.h"
#include "checkpoint/posix_file.h"
#include "runtime/error.h"
#include "runtime/json.h"

namespace caravan {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxManifestDepth = 16;  // there are six levels

// Any number of them, one after the other.
std::vector<uint32_t> decode_checksums(JsonKeys& keys, const char* key) {
  const std::string text = keys.need_text(key);
  const bool is_plain = text.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (text.size() % 8 != 0 || !is_plain) keys.refuse(key, "8 hex digits a checksum");
  std::vector<uint32_t> result(text.size() / 8);
  for (size_t i = 0; i < result.size(); ++i) {
    const char* const begin = text.data() + 8 * i;
    std::from_chars(begin, begin + 8, result[i], 16);  // 8 hex digits always are one
  }
  return result;
}

// An object whose values are all read by `decode`, which says whether it could.
template <typename T, typename Decode>
std::map<std::string, T> decode_map(JsonKeys& keys, const char* key, const Decode& decode) {
  std::map<std::string, T> result;
  for (const dom::key_value_pair entry : keys.need_entries(key)) {
    const auto [place, is_new] = result.try_emplace(std::string(entry.key));
    if (!is_new) keys.fail_at(key, absl::StrFormat("has %s twice", in_quotes(entry.key)));
    if (decode(entry.value, place->second)) continue;
    keys.fail_at(key, absl::StrFormat("has %s at %s, which is of the wrong kind",
                                      shown(entry.value), in_quotes(entry.key)));
  }
  return result;
}

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

DType decode_dtype(JsonKeys& keys) {
  const std::string text = keys.need_text("dtype");
  for (const DType dtype : kDTypes) {
    if (text == name(dtype)) return dtype;
  }
  keys.refuse("dtype", "f32, bf16 or i32");
}

FileRecord decode_file(JsonKeys keys) {
  FileRecord file{keys.need_text("name"), keys.need_integer("size_bytes", kAnyInteger), 0};
  const std::vector<uint32_t> checksums = decode_checksums(keys, "frame_crc32c");
  if (checksums.size() != 1) keys.refuse("frame_crc32c", "8 hex digits");
  file.frame_crc32c = checksums.front();
  return file;
}

std::vector<FileRecord> decode_files(JsonKeys& keys, const char* key) {
  std::vector<FileRecord> files;
  keys.each(key, [&](JsonKeys file) { files.push_back(decode_file(std::move(file))); });
  return files;
}

// Checkpoints of earlier versions have none.
std::vector<FileRecord> decode_assets(JsonKeys& keys) {
  if (!keys.has("assets")) return {};
  return decode_files(keys, "assets");
}

ShardRecord decode_shard(JsonKeys keys) {
  return {
      .box = {keys.need_integers("offset", kAnyInteger), keys.need_integers("extent", kAnyInteger)},
      .file = keys.need_text("file"),
      .offset_bytes = keys.need_integer("offset_bytes", kAnyInteger),
      .crc32c = decode_checksums(keys, "crc32c")};
}

std::vector<TensorRecord> decode_tensors(JsonKeys& keys) {
  std::vector<TensorRecord> tensors;
  keys.each("tensors", [&](JsonKeys entry) {
    TensorRecord tensor{entry.need_text("name"),
                        decode_dtype(entry),
                        entry.need_integers("shape", kAnyInteger),
                        {}};
    entry.each("shards",
               [&](JsonKeys shard) { tensor.shards.push_back(decode_shard(std::move(shard))); });
    tensors.push_back(std::move(tensor));
  });
  return tensors;
}

CheckpointHeader decode_header(JsonKeys& keys) {
  return {.run_id = keys.need_text("run_id"),
          .step = keys.need_integer("step", kAnyInteger),
          .tokens = keys.need_integer("tokens", kAnyInteger),
          .config_hash = keys.need_text("config_hash"),
          .tool_version = keys.need_text("tool_version"),
          .unix_time = keys.need_integer("unix_time", kAnyInteger),
          .layout = decode_map<int64_t>(keys, "layout", decode_integer),
          .counters = decode_map<int64_t>(keys, "counters", decode_integer),
          .scalars = decode_map<double>(keys, "scalars", decode_scalar),
          .series = decode_map<std::vector<double>>(keys, "series", decode_series),
          .texts = decode_map<std::string>(keys, "texts", decode_text)};
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
  const JsonText json(text, kMaxManifestDepth, origin, ExitCode::checkpoint);
  JsonKeys keys = json.keys();
  if (keys.need_integer("format", kAnyInteger) != kManifestFormat) {
    keys.refuse("format", absl::StrFormat("%d, which this program reads", kManifestFormat));
  }
  Manifest manifest{.header = decode_header(keys), .files = {}, .tensors = {}};
  manifest.files = decode_files(keys, "files");
  manifest.tensors = decode_tensors(keys);
  manifest.assets = decode_assets(keys);
  validate(manifest, origin);
  return manifest;
}

RankReport decode_rank_report(const std::string& text, const std::string& origin) {
  const JsonText json(text, kMaxManifestDepth, origin, ExitCode::checkpoint);
  JsonKeys keys = json.keys();
  return {.error = keys.need_text("error"),
          .file = decode_file(keys.need_object("file")),
          .tensors = decode_tensors(keys),
          .assets = decode_assets(keys)};
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  return decode_manifest(read_small_file(path, kMaxManifestBytes), path);
}

}  // namespace caravan
