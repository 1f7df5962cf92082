#include "checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_values.h"
#include "data/durable_file.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr size_t kWriteBufferBytes = size_t{1} << 20;
constexpr size_t kDataAlignment = 8;

SafetensorsTensor unplaced(const SafetensorsSpec& spec) {
  check(spec.dtype == SafetensorsDType::f32 || spec.dtype == SafetensorsDType::bf16,
        "%s is not written", name(spec.dtype));
  return {.name = spec.name,
          .dtype = spec.dtype,
          .shape = spec.shape,
          .begin = 0,
          .end = num_elements(spec.shape) * size_bytes(spec.dtype)};
}

// The length of the JSON, itself, and spaces up to where the data is aligned.
std::string header_of(const std::vector<SafetensorsTensor>& tensors) {
  nlohmann::ordered_json json = {{"__metadata__", {{"format", "pt"}}}};  // transformers asks for it
  for (const SafetensorsTensor& tensor : tensors) {
    json[tensor.name] = {{"dtype", name(tensor.dtype)},
                         {"shape", tensor.shape},
                         {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = json.dump();
  text.resize((text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment, ' ');
  std::string header;
  for (size_t i = 0; i < 8; ++i) header += static_cast<char>(text.size() >> 8 * i & 0xFF);
  return header + text;
}

// Places them in a file: the wider first, so that each is aligned.
void finish_shard(SafetensorsShard& shard) {
  std::ranges::stable_sort(shard.tensors, [](const auto& a, const auto& b) {
    return size_bytes(a.dtype) > size_bytes(b.dtype);
  });
  shard.data_bytes = 0;
  for (SafetensorsTensor& tensor : shard.tensors) {
    tensor.begin = shard.data_bytes;
    tensor.end = shard.data_bytes += tensor.end;
  }
  shard.header = header_of(shard.tensors);
}

std::string index_of(const SafetensorsPlan& plan) {
  nlohmann::json index;
  index["metadata"]["total_size"] = plan.total_bytes;
  for (const SafetensorsShard& shard : plan.shards) {
    for (const SafetensorsTensor& tensor : shard.tensors) {
      index["weight_map"][tensor.name] = shard.file;
    }
  }
  return index.dump(2) + "\n";
}

}  // namespace

SafetensorsPlan plan_safetensors(std::vector<SafetensorsSpec> tensors, int64_t max_shard_bytes) {
  check(max_shard_bytes > 0, "shards of %d bytes", max_shard_bytes);
  std::ranges::sort(tensors, {}, &SafetensorsSpec::name);
  SafetensorsPlan plan;
  plan.shards.emplace_back();
  for (const SafetensorsSpec& spec : tensors) {
    const SafetensorsTensor tensor = unplaced(spec);
    SafetensorsShard* shard = &plan.shards.back();
    if (!shard->tensors.empty() && shard->data_bytes + tensor.end > max_shard_bytes) {
      shard = &plan.shards.emplace_back();
    }
    shard->tensors.push_back(tensor);
    shard->data_bytes += tensor.end;
    plan.total_bytes += tensor.end;
  }
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    SafetensorsShard& shard = plan.shards[i];
    shard.file = plan.shards.size() == 1
                     ? kSafetensorsName
                     : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, plan.shards.size());
    finish_shard(shard);
  }
  if (plan.shards.size() > 1) plan.index = index_of(plan);
  return plan;
}

SafetensorsWriter::SafetensorsWriter(const std::string& folder, const SafetensorsShard& shard)
    : path_(folder + "/" + shard.file), tensors_(shard.tensors), buffer_(kWriteBufferBytes) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    throw checkpoint_error(absl::StrFormat("%s: cannot create: %s", path_, errno_text(errno)));
  }
  try {  // the destructor does not run after an error in here
    write(shard.header.data(), shard.header.size());
  } catch (...) {
    ::close(descriptor_);
    ::unlink(path_.c_str());
    throw;
  }
  skip_empty();
}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(path_.c_str());
}

void SafetensorsWriter::write(const char* bytes, size_t count) {
  while (count > 0) {
    const ssize_t done = ::write(descriptor_, bytes, count);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      throw checkpoint_error(absl::StrFormat("%s: cannot write: %s", path_, errno_text(errno)));
    }
    bytes += done, count -= static_cast<size_t>(done);
  }
}

// Tensors without elements are whole from the start.
void SafetensorsWriter::skip_empty() {
  while (current_ < tensors_.size() && tensors_[current_].begin == tensors_[current_].end) {
    ++current_;
  }
}

void SafetensorsWriter::append(const std::string& tensor, std::span<const float> values) {
  if (values.empty()) return;
  check(current_ < tensors_.size() && tensors_[current_].name == tensor,
        "%s: '%s' is not the tensor whose turn it is", path_, tensor);
  const SafetensorsTensor& spec = tensors_[current_];
  const auto element_bytes = static_cast<size_t>(size_bytes(spec.dtype));
  const int64_t total = num_elements(spec.shape);
  check(std::ssize(values) <= total - elements_, "%s: too many values for '%s'", path_, tensor);
  elements_ += std::ssize(values);
  while (!values.empty()) {
    const auto piece = values.first(std::min(values.size(), buffer_.size() / element_bytes));
    narrow(piece, spec.dtype, buffer_.data());
    write(buffer_.data(), piece.size() * element_bytes);
    values = values.subspan(piece.size());
  }
  if (elements_ < total) return;
  elements_ = 0;
  ++current_;
  skip_empty();
}

void SafetensorsWriter::finish() {
  check(current_ == tensors_.size(), "%s: '%s' is not whole", path_,
        current_ < tensors_.size() ? tensors_[current_].name : "");
  if (::fsync(descriptor_) != 0) {
    throw checkpoint_error(absl::StrFormat("%s: cannot fsync: %s", path_, errno_text(errno)));
  }
  const int descriptor = descriptor_;
  descriptor_ = -1;  // whatever close says, the descriptor is gone
  if (::close(descriptor) != 0) {
    throw checkpoint_error(absl::StrFormat("%s: cannot close: %s", path_, errno_text(errno)));
  }
}

}  // namespace caravan
