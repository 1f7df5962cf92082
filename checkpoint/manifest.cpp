// Writing and validating manifests; reading them is in manifest_reader.cpp.
#include "checkpoint/manifest.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/crc32c.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using nlohmann::json;

constexpr size_t kMaxNameBytes = 512;
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxShards = 1 << 16;  // of one tensor: bounds the search for overlaps

// JSON has no word for them, and a lost NaN would resume a run with another number.
json encode_scalar(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

json encode_scalars(const std::map<std::string, double>& scalars) {
  json result = json::object();
  for (const auto& [name, value] : scalars) result[name] = encode_scalar(value);
  return result;
}

json encode_series(const std::map<std::string, std::vector<double>>& series) {
  json result = json::object();
  for (const auto& [name, values] : series) {
    json& list = result[name] = json::array();
    for (const double value : values) list.push_back(encode_scalar(value));
  }
  return result;
}

json encode_file(const FileRecord& file) {
  return {{"name", file.name},
          {"size_bytes", file.size_bytes},
          {"frame_crc32c", crc32c_hex(file.frame_crc32c)}};
}

json encode_files(const std::vector<FileRecord>& files) {
  json result = json::array();
  for (const FileRecord& file : files) result.push_back(encode_file(file));
  return result;
}

// 8 digits for each, without anything between.
std::string encode_checksums(const std::vector<uint32_t>& checksums) {
  std::string text;
  for (const uint32_t checksum : checksums) text += crc32c_hex(checksum);
  return text;
}

json encode_shard(const ShardRecord& shard) {
  return {{"offset", shard.box.offset},
          {"extent", shard.box.extent},
          {"file", shard.file},
          {"offset_bytes", shard.offset_bytes},
          {"crc32c", encode_checksums(shard.crc32c)}};
}

json encode_tensors(const std::vector<TensorRecord>& tensors) {
  json result = json::array();
  for (const TensorRecord& tensor : tensors) {
    json shards = json::array();
    for (const ShardRecord& shard : tensor.shards) shards.push_back(encode_shard(shard));
    result.push_back({{"name", tensor.name},
                      {"dtype", name(tensor.dtype)},
                      {"shape", tensor.shape},
                      {"shards", std::move(shards)}});
  }
  return result;
}

// Says which manifest and which part of it is wrong.
struct Require {
  const std::string& origin;

  void operator()(bool ok, const std::string& part, const std::string& what) const {
    if (!ok) throw checkpoint_error(absl::StrFormat("%s: %s: %s", origin, part, what));
  }
};

// A path of HDF5 groups: no empty, "." or ".." part.
bool is_tensor_name(const std::string& text) {
  if (text.empty() || text.size() > kMaxNameBytes) return false;
  const auto printable = [](unsigned char c) { return c > ' ' && c < 0x7F; };
  if (!std::all_of(text.begin(), text.end(), printable)) return false;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('/', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

// Elements of a shape whose bytes fit an int64_t; -1 otherwise.
int64_t checked_elements(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 1 || __builtin_mul_overflow(count, size, &count)) return -1;
  }
  return count <= INT64_MAX / 16 ? count : -1;
}

// The dim along which the shards begin at the most places.
size_t most_split_dim(const TensorRecord& tensor) {
  size_t best = 0, most = 0;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    std::set<int64_t> begins;
    for (const ShardRecord& shard : tensor.shards) begins.insert(shard.box.offset[d]);
    if (begins.size() > most) best = d, most = begins.size();
  }
  return best;
}

// Shards with different ranges along one dim are found apart by sorting; only the rest is compared.
// The dim is chosen: a manifest with many shards side by side must not take minutes.
void check_disjoint(const TensorRecord& tensor, const Require& require) {
  if (tensor.shape.empty()) return;  // a scalar: its one element is counted by the caller
  const size_t dim = most_split_dim(tensor);
  std::vector<const ShardRecord*> sorted;
  for (const ShardRecord& shard : tensor.shards) sorted.push_back(&shard);
  const auto begin = [&](const ShardRecord* shard) { return shard->box.offset[dim]; };
  std::sort(sorted.begin(), sorted.end(),
            [&](const auto* a, const auto* b) { return begin(a) < begin(b); });
  for (size_t i = 0; i < sorted.size(); ++i) {
    const int64_t end = begin(sorted[i]) + sorted[i]->box.extent[dim];
    for (size_t j = i + 1; j < sorted.size() && begin(sorted[j]) < end; ++j) {
      if (!overlap(sorted[i]->box, sorted[j]->box)) continue;
      require(false, "tensor " + tensor.name,
              absl::StrFormat("shards %s and %s overlap", to_string(sorted[i]->box),
                              to_string(sorted[j]->box)));
    }
  }
}

struct ByteRange {
  int64_t begin, end;
  const TensorRecord* tensor;
};
using FileRanges = std::map<std::string, std::vector<ByteRange>>;

void check_tensor(const TensorRecord& tensor, const Require& require, FileRanges& files) {
  const std::string part = "tensor " + tensor.name;
  const int64_t num_elements = checked_elements(tensor.shape);
  require(tensor.shape.size() <= kMaxDims && num_elements > 0, part,
          absl::StrFormat("impossible shape %s", to_string(tensor.shape)));
  require(tensor.shards.size() <= kMaxShards, part, "too many shards");
  int64_t covered = 0;
  for (const ShardRecord& shard : tensor.shards) {
    require(
        lies_inside(shard.box, tensor.shape), part,
        absl::StrFormat("a shard in %s leaves the shape %s", shard.file, to_string(tensor.shape)));
    const int64_t elements = caravan::num_elements(shard.box.extent);
    const int64_t bytes = elements * size_bytes(tensor.dtype);
    require(files.count(shard.file) > 0, part, "is said to be in unlisted file " + shard.file);
    require(shard.offset_bytes >= 0 && shard.offset_bytes <= INT64_MAX - bytes, part,
            "impossible offset_bytes");
    require(std::ssize(shard.crc32c) == num_blocks(bytes), part,
            absl::StrFormat("a shard in %s has %d checksums, not %d", shard.file,
                            shard.crc32c.size(), num_blocks(bytes)));
    files[shard.file].push_back({shard.offset_bytes, shard.offset_bytes + bytes, &tensor});
    covered += elements;
    require(covered <= num_elements, part, "its shards overlap");
  }
  check_disjoint(tensor, require);
  require(
      covered == num_elements, part,
      absl::StrFormat("%d of %d elements are in no shard", num_elements - covered, num_elements));
}

void check_file(const FileRecord& file, std::vector<ByteRange>& ranges, const Require& require) {
  std::sort(ranges.begin(), ranges.end(),
            [](const ByteRange& a, const ByteRange& b) { return a.begin < b.begin; });
  int64_t end = 0;
  for (const ByteRange& range : ranges) {
    const std::string part = "tensor " + range.tensor->name;
    require(range.begin >= end, part, "overlaps another one in " + file.name);
    require(range.end <= file.size_bytes, part, "lies beyond the end of " + file.name);
    end = range.end;
  }
}

}  // namespace

bool is_plain_name(const std::string& text) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  };
  return !text.empty() && text.size() <= 128 && text[0] != '.' &&
         std::all_of(text.begin(), text.end(), plain);
}

std::string encode(const Manifest& manifest) {
  const CheckpointHeader& header = manifest.header;
  const json body = {{"format", kManifestFormat},
                     {"run_id", header.run_id},
                     {"step", header.step},
                     {"tokens", header.tokens},
                     {"config_hash", header.config_hash},
                     {"tool_version", header.tool_version},
                     {"unix_time", header.unix_time},
                     {"layout", header.layout},
                     {"counters", header.counters},
                     {"scalars", encode_scalars(header.scalars)},
                     {"series", encode_series(header.series)},
                     {"texts", header.texts},
                     {"files", encode_files(manifest.files)},
                     {"assets", encode_files(manifest.assets)},
                     {"tensors", encode_tensors(manifest.tensors)}};
  std::string text = body.dump(1);
  text.resize(text.size() - 2);  // the closing "\n}" follows the checksum
  text += ",\n";
  return text + absl::StrFormat("\"crc32c\": \"%08x\"\n}\n", crc32c(text.data(), text.size()));
}

std::string encode(const RankReport& report) {
  return json{{"error", report.error},
              {"file", encode_file(report.file)},
              {"tensors", encode_tensors(report.tensors)},
              {"assets", encode_files(report.assets)}}
      .dump(-1, ' ', false, json::error_handler_t::replace);  // paths may hold any bytes
}

void validate(const Manifest& manifest, const std::string& origin) {
  const Require require{origin};
  require(is_plain_name(manifest.header.run_id), "run_id", "not a plain name");
  require(manifest.header.step >= 0, "step", "negative");
  require(manifest.header.tokens >= 0, "tokens", "negative");
  FileRanges ranges;
  std::set<std::string> assets;
  int64_t total = 0;
  const auto check_size = [&](const FileRecord& file, const char* list) {
    require(is_plain_name(file.name), list, "a name that is not plain");
    require(file.size_bytes >= 0, "file " + file.name, "negative size_bytes");
    require(!__builtin_add_overflow(total, file.size_bytes, &total), "file " + file.name,
            "impossible size_bytes");
  };
  for (const FileRecord& file : manifest.files) {
    check_size(file, "files");
    require(ranges.try_emplace(file.name).second, "file " + file.name, "listed twice");
  }
  for (const FileRecord& file : manifest.assets) {
    check_size(file, "assets");
    require(assets.insert(file.name).second, "asset " + file.name, "listed twice");
  }
  std::set<std::string> names;
  for (const TensorRecord& tensor : manifest.tensors) {
    require(is_tensor_name(tensor.name), "tensors", "a name that is not one of a tensor");
    require(names.insert(tensor.name).second, "tensor " + tensor.name, "listed twice");
    check_tensor(tensor, require, ranges);
  }
  for (const FileRecord& file : manifest.files) check_file(file, ranges[file.name], require);
}

int64_t total_bytes(const Manifest& manifest) {
  int64_t bytes = 0;
  for (const FileRecord& file : manifest.files) bytes += file.size_bytes;
  for (const FileRecord& file : manifest.assets) bytes += file.size_bytes;
  return bytes;
}

}  // namespace caravan
