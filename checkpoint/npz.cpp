#include "checkpoint/npz.h"

#include <zip.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "checkpoint/posix_file.h"
#include "runtime/error.h"

namespace caravan {
namespace {

static_assert(std::endian::native == std::endian::little, ".npy files are read as little-endian");

constexpr int64_t kArrayPieceBytes = 64 << 10;
constexpr int64_t kMostEntries = 100'000;
constexpr uint64_t kMostInflation = 1100;            // deflate reaches 1032
constexpr int64_t kMostIntegers = int64_t{1} << 27;  // of one array, in memory

// IEEE 754 binary16.
float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<float>::infinity()
                         : std::numeric_limits<float>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

template <typename From>
From load(const char* bytes, size_t index) {
  From value;
  std::memcpy(&value, bytes + index * sizeof(From), sizeof(From));
  return value;
}

void to_floats(NpyType type, const char* bytes, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    if (type == NpyType::f32) {
      out[i] = load<float>(bytes, i);
    } else if (type == NpyType::f64) {
      out[i] = static_cast<float>(load<double>(bytes, i));
    } else {
      out[i] = half_to_float(load<uint16_t>(bytes, i));
    }
  }
}

std::string zip_problem(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

}  // namespace

class NpzFile::Bytes {
 public:
  virtual ~Bytes() = default;
  // Bytes [offset, offset + count), which the entry has.
  virtual void read(const Entry& entry, int64_t offset, int64_t count, char* bytes) = 0;
};

class NpzFile::PlainBytes : public Bytes {
 public:
  explicit PlainBytes(const std::string& path) : file_(path) {}
  int64_t size_bytes() const { return file_.size_bytes(); }
  void read(const Entry&, int64_t offset, int64_t count, char* bytes) override {
    file_.read(offset, count, bytes);
  }

 private:
  ReadableFile file_;
};

class NpzFile::ZipBytes : public Bytes {
 public:
  explicit ZipBytes(const std::string& path) : path_(path) {
    int code = 0;
    zip_.reset(::zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (zip_ == nullptr) {
      throw checkpoint_error(
          absl::StrFormat("%s: is neither a .npz nor a .npy: %s", path, zip_problem(code)));
    }
  }

  std::map<std::string, Entry> entries(int64_t file_size) const {
    const zip_int64_t count = ::zip_get_num_entries(zip_.get(), 0);
    if (count < 0 || count > kMostEntries) {
      throw checkpoint_error(
          absl::StrFormat("%s: has %d entries; at most %d are read", path_, count, kMostEntries));
    }
    std::map<std::string, Entry> found;
    for (zip_int64_t i = 0; i < count; ++i) add(static_cast<uint64_t>(i), file_size, found);
    return found;
  }

  void read(const Entry& entry, int64_t offset, int64_t count, char* bytes) override {
    seek(entry, offset);
    read_on(count, bytes);
    // The end of an entry is where its checksum is compared.
    char beyond = 0;
    if (position_ == entry.size_bytes && ::zip_fread(open_.get(), &beyond, 1) != 0) fail();
  }

 private:
  struct CloseZip {
    void operator()(zip_t* zip) const { ::zip_discard(zip); }
  };
  struct CloseFile {
    void operator()(zip_file_t* file) const { ::zip_fclose(file); }
  };

  void add(uint64_t index, int64_t file_size, std::map<std::string, Entry>& found) const {
    zip_stat_t status;
    ::zip_stat_init(&status);
    constexpr zip_uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE |
                                     ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (::zip_stat_index(zip_.get(), index, ZIP_FL_ENC_RAW, &status) != 0 ||
        (status.valid & kNeeded) != kNeeded) {
      throw checkpoint_error(absl::StrFormat("%s: damaged zip: entry %d", path_, index));
    }
    std::string name = status.name;
    if (!name.ends_with(".npy")) return;
    name.resize(name.size() - 4);
    const bool is_stored = status.comp_method == ZIP_CM_STORE;
    if ((!is_stored && status.comp_method != ZIP_CM_DEFLATE) ||
        status.encryption_method != ZIP_EM_NONE) {
      throw checkpoint_error(absl::StrFormat(
          "%s: entry %d is encrypted or compressed by another method than deflate: save it again "
          "with numpy.savez",
          path_, index));
    }
    const uint64_t most = is_stored ? status.comp_size : status.comp_size * kMostInflation;
    if (status.comp_size > static_cast<uint64_t>(file_size) || status.size > most) {
      throw checkpoint_error(absl::StrFormat(
          "%s: damaged zip: entry %d cannot have %d bytes in a file of %d: copy or save it again",
          path_, index, status.size, file_size));
    }
    const Entry entry{index, static_cast<int64_t>(status.size), is_stored};
    if (found.emplace(std::move(name), entry).second) return;
    throw checkpoint_error(
        absl::StrFormat("%s: entry %d has the name of one before it", path_, index));
  }

  [[noreturn]] void fail() const {
    throw checkpoint_error(absl::StrFormat("%s: damaged zip: %s: copy or save it again", path_,
                                           ::zip_file_strerror(open_.get())));
  }

  void reopen(const Entry& entry) {
    open_.reset(::zip_fopen_index(zip_.get(), entry.index, 0));
    if (open_ == nullptr) {
      throw checkpoint_error(
          absl::StrFormat("%s: damaged zip: %s", path_, ::zip_strerror(zip_.get())));
    }
    index_ = entry.index;
    position_ = 0;
  }

  void seek(const Entry& entry, int64_t offset) {
    if (open_ == nullptr || index_ != entry.index || offset < position_) reopen(entry);
    // Short ways are read, so that what is read from begin to end has its checksum compared.
    if (entry.is_stored && offset - position_ > kArrayPieceBytes) {
      if (::zip_fseek(open_.get(), offset, SEEK_SET) != 0) fail();
      position_ = offset;
    }
    std::vector<char> skipped(static_cast<size_t>(std::min(kArrayPieceBytes, offset - position_)));
    while (position_ < offset)
      read_on(std::min(std::ssize(skipped), offset - position_), skipped.data());
  }

  void read_on(int64_t count, char* bytes) {
    while (count > 0) {
      const zip_int64_t done = ::zip_fread(open_.get(), bytes, static_cast<zip_uint64_t>(count));
      if (done < 0) fail();
      if (done == 0) {
        throw checkpoint_error(path_ +
                               ": damaged zip: an entry ends before its size: copy or "
                               "save it again");
      }
      bytes += done, position_ += done, count -= done;
    }
  }

  std::string path_;
  std::unique_ptr<zip_t, CloseZip> zip_;
  std::unique_ptr<zip_file_t, CloseFile> open_;  // entry index_, at byte position_
  uint64_t index_ = 0;
  int64_t position_ = 0;
};

NpzFile::NpzFile(const std::string& path) : path_(path) {
  auto plain = std::make_unique<PlainBytes>(path);
  char begin[6] = {};
  const Entry whole{0, plain->size_bytes()};
  if (whole.size_bytes >= 6) plain->read(whole, 0, 6, begin);
  if (std::memcmp(begin, "\x93NUMPY", 6) == 0) {
    entries_[std::filesystem::path(path).stem().string()] = whole;
    bytes_ = std::move(plain);
    return;
  }
  auto zip = std::make_unique<ZipBytes>(path);
  entries_ = zip->entries(whole.size_bytes);
  bytes_ = std::move(zip);
}

NpzFile::~NpzFile() = default;

std::string NpzFile::place(const std::string& name) const { return path_ + ": array " + name; }

NpzFile::Entry& NpzFile::entry(const std::string& name) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw checkpoint_error(path_ + ": has no array " + name);
  return found->second;
}

const NpyArray& NpzFile::header(const std::string& name) {
  Entry& found = entry(name);
  if (found.has_header) return found.header;
  std::string begin(static_cast<size_t>(std::min(found.size_bytes, kLargestNpyHeader)), '\0');
  bytes_->read(found, 0, std::ssize(begin), begin.data());
  found.header = parse_npy_header(begin, found.size_bytes, place(name));
  found.has_header = true;
  return found.header;
}

void NpzFile::check_order(const std::string& name, const NpyArray& array) const {
  if (!array.fortran_order || array.shape.size() <= 1) return;
  throw checkpoint_error(place(name) +
                         ": is in Fortran's order: save numpy.ascontiguousarray of it");
}

std::vector<int64_t> NpzFile::read_integers(const std::string& name) {
  const NpyArray& array = header(name);
  check_order(name, array);
  if (array.type != NpyType::i32 && array.type != NpyType::i64) {
    throw checkpoint_error(absl::StrFormat("%s: holds %s where i32 or i64 is expected", place(name),
                                           caravan::name(array.type)));
  }
  if (array.num_elements > kMostIntegers) {
    throw checkpoint_error(absl::StrFormat("%s: has %d elements; at most %d are read", place(name),
                                           array.num_elements, kMostIntegers));
  }
  std::vector<int64_t> elements;
  const int64_t width = caravan::size_bytes(array.type);
  piece_.resize(kArrayPieceBytes);
  for (int64_t first = 0; first < array.num_elements;) {
    const int64_t count = std::min(kArrayPieceBytes / width, array.num_elements - first);
    bytes_->read(entry(name), array.data_offset + first * width, count * width, piece_.data());
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      elements.push_back(width == 4 ? load<int32_t>(piece_.data(), i)
                                    : load<int64_t>(piece_.data(), i));
    }
    first += count;
  }
  return elements;
}

void NpzFile::read_floats(const std::string& name, int64_t first, std::span<float> out) {
  const NpyArray& array = header(name);
  check_order(name, array);
  if (array.type == NpyType::i32 || array.type == NpyType::i64) {
    throw checkpoint_error(absl::StrFormat("%s: holds %s where f16, f32 or f64 is expected",
                                           place(name), caravan::name(array.type)));
  }
  check(first >= 0 && first <= array.num_elements && std::ssize(out) <= array.num_elements - first,
        "%s: elements [%d, +%d) of %d", place(name), first, out.size(), array.num_elements);
  const int64_t width = caravan::size_bytes(array.type);
  piece_.resize(kArrayPieceBytes);
  while (!out.empty()) {
    const int64_t count = std::min(kArrayPieceBytes / width, std::ssize(out));
    bytes_->read(entry(name), array.data_offset + first * width, count * width, piece_.data());
    to_floats(array.type, piece_.data(), out.first(static_cast<size_t>(count)));
    first += count;
    out = out.subspan(static_cast<size_t>(count));
  }
}

}  // namespace caravan
