#include "checkpoint/safetensors.h"

#include <algorithm>

#include "checkpoint/box.h"
#include "checkpoint/safetensors_values.h"
#include "data/folder_path.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr size_t kReadBufferBytes = size_t{1} << 20;
constexpr size_t kMaxOpenShards = 16;
constexpr int64_t kLengthBytes = 8;

// The box of a dense array, as runs of elements that lie side by side in it. Taken one after the
// other they are the dense array of the box.
class BoxRuns {
 public:
  BoxRuns(const Shape& shape, const Box& box) : index_(box.offset), box_(box) {
    strides_.assign(shape.size(), 1);
    for (size_t d = shape.size(); d-- > 1;) strides_[d - 1] = strides_[d] * shape[d];
    // Inner dims that are wanted whole are one run with the dim around them.
    num_outer_ = shape.size();
    while (num_outer_ > 0) {
      --num_outer_;
      length_ *= box.extent[num_outer_];
      if (box.extent[num_outer_] != shape[num_outer_]) break;
    }
  }

  int64_t length() const { return length_; }
  int64_t first() const {  // element of the array with which the current run begins
    int64_t element = 0;
    for (size_t d = 0; d < index_.size(); ++d) element += index_[d] * strides_[d];
    return element;
  }
  bool advance() {  // false: there is no further one
    for (size_t d = num_outer_; d-- > 0;) {
      if (++index_[d] < box_.offset[d] + box_.extent[d]) return true;
      index_[d] = box_.offset[d];
    }
    return false;
  }

 private:
  Shape index_;
  const Box& box_;
  std::vector<int64_t> strides_;
  size_t num_outer_ = 0;
  int64_t length_ = 1;
};

// Also of tensors that have no elements.
bool is_box_of(const Box& box, const Shape& shape) {
  const Box whole{Shape(shape.size(), 0), shape};
  return lies_inside(box, shape) || box == whole;
}

int64_t read_length(const ReadableFile& file, const std::string& path) {
  if (file.size_bytes() < kLengthBytes) {
    throw checkpoint_error(path + ": is no safetensors file: it has less than 8 bytes");
  }
  unsigned char bytes[kLengthBytes];
  file.read(0, kLengthBytes, reinterpret_cast<char*>(bytes));
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | bytes[i];
  const auto rest = static_cast<uint64_t>(file.size_bytes() - kLengthBytes);
  if (length > rest || length > static_cast<uint64_t>(kMaxSafetensorsHeaderBytes)) {
    throw checkpoint_error(absl::StrFormat(
        "%s: its header is said to have %d bytes, but %d follow and %d are allowed; is it whole, "
        "and a safetensors file?",
        path, length, rest, kMaxSafetensorsHeaderBytes));
  }
  return static_cast<int64_t>(length);
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  const ReadableFile file(path);
  const int64_t header_bytes = read_length(file, path);
  std::string header(static_cast<size_t>(header_bytes), '\0');
  file.read(kLengthBytes, header_bytes, header.data());
  file_bytes_ = file.size_bytes();
  data_begin_ = kLengthBytes + header_bytes;
  tensors_ = parse_safetensors_header(header, file_bytes_ - data_begin_, path);
}

void SafetensorsFile::open() {
  if (file_) return;
  // Opened a second time it may be another one; a new header would not be noticed.
  auto file = std::make_unique<ReadableFile>(path_);
  if (file->size_bytes() != file_bytes_) {
    throw checkpoint_error(path_ + ": has another size than at first; was it written again?");
  }
  file_ = std::move(file);
}

void SafetensorsFile::read_bytes(int64_t begin, int64_t count, char* bytes) {
  check(begin >= 0 && count >= 0 && begin <= data_bytes() - count, "bytes beyond %s", path_);
  open();
  file_->read(data_begin_ + begin, count, bytes);
}

int64_t SafetensorsFile::read(const SafetensorsTensor& tensor, const Box& box,
                              std::vector<char>& buffer, float* out) {
  check(is_box_of(box, tensor.shape), "box %s of %s leaves its shape %s", to_string(box),
        tensor.name, to_string(tensor.shape));
  expect_weight_dtype(tensor, path_);
  const int64_t total = num_elements(box.extent);
  if (total == 0) return 0;
  const int64_t element_bytes = size_bytes(tensor.dtype);
  // f32 goes to its place at once, the others through the buffer.
  const bool is_direct = tensor.dtype == SafetensorsDType::f32;
  const int64_t piece = is_direct ? total : std::ssize(buffer) / element_bytes;
  BoxRuns runs(tensor.shape, box);
  do {
    const int64_t first = runs.first();
    for (int64_t done = 0; done < runs.length(); done += piece) {
      const int64_t count = std::min(runs.length() - done, piece);
      char* const bytes = is_direct ? reinterpret_cast<char*>(out) : buffer.data();
      read_bytes(tensor.begin + (first + done) * element_bytes, count * element_bytes, bytes);
      if (!is_direct) widen(tensor.dtype, bytes, count, out);
      out += count;
    }
  } while (runs.advance());
  return total * element_bytes;
}

SafetensorsFolder::SafetensorsFolder(const std::string& folder) : folder_(folder) {
  // In this order, as transformers looks for them.
  if (const auto single = find_inside(folder, kSafetensorsName)) {
    add_file(*single);
  } else if (const auto index = find_inside(folder, kSafetensorsIndexName)) {
    add_shards(*index);
  } else {
    throw checkpoint_error(absl::StrFormat(
        "%s: has neither %s nor %s; other formats are not read: save the model with "
        "save_pretrained of transformers",
        folder, kSafetensorsName, kSafetensorsIndexName));
  }
}

void SafetensorsFolder::add_file(const std::string& path) {
  const SafetensorsFile& file = files_.emplace_back(path);
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const std::string& name = file.tensors()[i].name;
    const auto [place, is_new] = places_.try_emplace(name, Place{files_.size() - 1, i});
    if (is_new) continue;
    throw checkpoint_error(absl::StrFormat("%s: tensor '%s' is also in %s; remove one of the files",
                                           path, name, files_[place->second.file].path()));
  }
}

void SafetensorsFolder::add_shards(const std::string& index_path) {
  const std::string text = read_small_file(index_path, kMaxSafetensorsHeaderBytes);
  const SafetensorsIndex index = parse_safetensors_index(text, index_path);
  std::map<std::string, size_t> shards;  // by name: index of files_
  for (const auto& [tensor, name] : index.files) {
    if (shards.count(name) > 0) continue;
    shards.emplace(name, files_.size());
    add_file(resolve_inside(folder_, name));
  }
  // Both ways: what the shards have is listed, and what is listed is there.
  for (const auto& [tensor, place] : places_) {
    const auto listed = index.files.find(tensor);
    if (listed == index.files.end() || shards.at(listed->second) != place.file) {
      throw checkpoint_error(
          absl::StrFormat("%s: tensor '%s' is in %s, which its weight_map does not say", index_path,
                          tensor, files_[place.file].path()));
    }
  }
  for (const auto& [tensor, name] : index.files) {
    if (has(tensor)) continue;
    throw checkpoint_error(absl::StrFormat(
        "%s: tensor '%s' is not in %s, where its weight_map says", index_path, tensor, name));
  }
}

const SafetensorsFolder::Place& SafetensorsFolder::place(const std::string& tensor) const {
  const auto found = places_.find(tensor);
  if (found != places_.end()) return found->second;
  throw checkpoint_error(absl::StrFormat("%s: has no tensor '%s'", folder_, tensor));
}

std::vector<std::string> SafetensorsFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [tensor, place] : places_) names.push_back(tensor);
  return names;
}

const SafetensorsTensor& SafetensorsFolder::tensor(const std::string& name) const {
  const Place& found = place(name);
  return files_[found.file].tensors()[found.tensor];
}

const std::string& SafetensorsFolder::file_of(const std::string& tensor) const {
  return files_[place(tensor).file].path();
}

void SafetensorsFolder::read(const std::string& tensor, const Box& box, float* out) {
  const Place& found = place(tensor);
  SafetensorsFile& file = files_[found.file];
  // Models are read in about the order of their shards, so it matters little which are closed.
  if (!file.is_open() && num_open_ == kMaxOpenShards) {
    for (SafetensorsFile& other : files_) other.close();
    num_open_ = 0;
  }
  if (!file.is_open()) ++num_open_;
  buffer_.resize(kReadBufferBytes);
  bytes_read_ += file.read(file.tensors()[found.tensor], box, buffer_, out);
}

}  // namespace caravan
