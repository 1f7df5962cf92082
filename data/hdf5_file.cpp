// The library is used for structure only (objects, types, attributes). Elements are written and
// read by pwrite and pread at the offset of their dataset: contiguous storage is a plain byte
// range.
#include "data/hdf5_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <set>

#include "data/durable_file.h"
#include "data/hdf5_superblock.h"

namespace caravan {
namespace {

static_assert(sizeof(hid_t) == sizeof(int64_t));

constexpr int64_t kAlignmentBytes = 4096;
constexpr int64_t kWriteBackBytes = int64_t{8} << 20;
constexpr int kMaxDims = 8;
constexpr int kMaxDepth = 16;
constexpr size_t kMaxObjects = 1 << 20;
constexpr size_t kMaxAttributeBytes = 1 << 20;

constexpr int kNumTypes = 7;  // in the order of Hdf5Type
constexpr std::array<std::string_view, kNumTypes> kTypeNames = {"u8",  "u16", "u32", "i32",
                                                                "i64", "f32", "f64"};
constexpr std::array<int64_t, kNumTypes> kTypeBytes = {1, 2, 4, 4, 8, 4, 8};

hid_t file_type(Hdf5Type type) {
  const std::array<hid_t, kNumTypes> types = {H5T_STD_U8LE,  H5T_STD_U16LE, H5T_STD_U32LE,
                                              H5T_STD_I32LE, H5T_STD_I64LE, H5T_IEEE_F32LE,
                                              H5T_IEEE_F64LE};
  return types[static_cast<size_t>(type)];
}

// Before anything else is asked of the library. A file that could not be closed, because the disk
// is full, stays half open in it, and its handler at exit would crash on that. We close all that
// can be closed ourselves, so nothing is left to the handler.
void prepare_library() {
  H5dont_atexit();  // says no when called again
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

// The innermost reason on the library's error stack.
std::string library_reason() {
  std::string reason = "unknown reason";
  const auto first = [](unsigned, const H5E_error2_t* entry, void* data) -> herr_t {
    if (entry->desc != nullptr) *static_cast<std::string*>(data) = entry->desc;
    return 1;  // stop: the walk starts at the innermost entry
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first, &reason);
  // A failed system call: of a line full of pointers, the number is what helps.
  constexpr std::string_view kNumber = "errno = ";
  if (const size_t at = reason.find(kNumber); at != std::string::npos) {
    return errno_text(std::atoi(reason.c_str() + at + kNumber.size()));
  }
  for (char& c : reason) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return reason;
}

// An identifier of the library, closed at the end of the scope.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }

 private:
  hid_t id_;
  Close close_;
};

// The library opens what our descriptor holds, so that no other file can slip in between.
std::string descriptor_path(int file) { return absl::StrFormat("/proc/self/fd/%d", file); }

// Bytes of a dense array, or -1 on overflow or a negative size.
int64_t checked_bytes(const Shape& shape, int64_t element_bytes) {
  int64_t bytes = element_bytes;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, size, &bytes)) return -1;
  }
  return bytes;
}

// What every error of a file says first.
struct Fail {
  const std::string& path;
  ExitCode code;

  [[noreturn]] void operator()(const std::string& what) const {
    throw Error(code, path + ": " + what);
  }
  [[noreturn]] void operator()(const std::string& object, const std::string& what) const {
    (*this)(object.empty() ? what : absl::StrFormat("'%s': %s", object, what));
  }
};

void check_range(const Hdf5Dataset& dataset, const std::string& name, int64_t first,
                 int64_t count) {
  check(first >= 0 && count >= 0 && first <= dataset.num_elements - count,
        "hdf5 '%s': elements [%d, +%d) of %d", name, first, count, dataset.num_elements);
}

}  // namespace

int64_t size_bytes(Hdf5Type type) { return kTypeBytes[static_cast<size_t>(type)]; }
std::string_view name(Hdf5Type type) { return kTypeNames[static_cast<size_t>(type)]; }

// ---------------------------------------------------------------------------------------- writing

Hdf5Writer::Hdf5Writer(const std::string& path, ExitCode error_code)
    : path_(path), error_code_(error_code) {
  const Fail fail{path_, error_code_};
  prepare_library();
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // The latest format checksums all of its own structures. Threshold 1: small arrays are aligned
  // too, so that a mapped dataset can be used in place.
  const bool ready =
      H5Pset_libver_bounds(access.get(), H5F_LIBVER_LATEST, H5F_LIBVER_LATEST) >= 0 &&
      H5Pset_alignment(access.get(), 1, kAlignmentBytes) >= 0 &&
      H5Pset_file_locking(access.get(), false, true) >= 0;
  if (!ready) fail("cannot set up HDF5: " + library_reason());
  file_descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file_descriptor_ < 0) fail("cannot create the file: " + errno_text(errno));
  file_ = H5Fcreate(descriptor_path(file_descriptor_).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT,
                    access.get());
  if (file_ >= 0) return;
  const std::string reason = library_reason();
  ::close(file_descriptor_);
  fail("cannot create the file: " + reason);
}

Hdf5Writer::~Hdf5Writer() {
  if (file_ >= 0) H5Fclose(file_);
  if (file_descriptor_ >= 0) ::close(file_descriptor_);
}

void Hdf5Writer::create(const std::string& name, Hdf5Type type, const Shape& shape) {
  const Fail fail{path_, error_code_};
  const int64_t bytes = checked_bytes(shape, caravan::size_bytes(type));
  check(bytes >= 0 && shape.size() <= kMaxDims, "hdf5 '%s': shape %s", name, to_string(shape));
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  const Handle space(shape.empty()
                         ? H5Screate(H5S_SCALAR)
                         : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr),
                     H5Sclose);
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  // Early allocation, so that the offset is known now.
  const bool ready = H5Pset_layout(layout.get(), H5D_CONTIGUOUS) >= 0 &&
                     H5Pset_alloc_time(layout.get(), H5D_ALLOC_TIME_EARLY) >= 0 &&
                     H5Pset_fill_time(layout.get(), H5D_FILL_TIME_NEVER) >= 0 &&
                     H5Pset_create_intermediate_group(links.get(), 1) >= 0;
  const Handle dataset(ready ? H5Dcreate2(file_, name.c_str(), file_type(type), space.get(),
                                          links.get(), layout.get(), H5P_DEFAULT)
                             : -1,
                       H5Dclose);
  if (!dataset.ok()) fail(name, "cannot create the dataset: " + library_reason());
  const haddr_t offset = bytes == 0 ? 0 : H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF) fail(name, "HDF5 gave the dataset no place in the file");
  datasets_[name] = {.type = type,
                     .shape = shape,
                     .num_elements = caravan::num_elements(shape),
                     .size_bytes = bytes,
                     .offset_bytes = static_cast<int64_t>(offset)};
}

const Hdf5Dataset& Hdf5Writer::created(const std::string& dataset) const {
  check(datasets_.count(dataset) > 0, "hdf5: dataset '%s' was not created", dataset);
  return datasets_.at(dataset);
}

void Hdf5Writer::check_type(const std::string& dataset, Hdf5Type type) const {
  const Hdf5Type is = created(dataset).type;
  check(is == type, "hdf5 '%s' is %s, given %s", dataset, name(is), name(type));
}

void Hdf5Writer::write(const std::string& name, int64_t first, int64_t count,
                       const void* elements) {
  const Hdf5Dataset& dataset = created(name);
  check_range(dataset, name, first, count);
  const int64_t element_bytes = caravan::size_bytes(dataset.type);
  const char* source = static_cast<const char*>(elements);
  int64_t position = dataset.offset_bytes + first * element_bytes;
  int64_t left = count * element_bytes;
  while (left > 0) {
    const ssize_t done = ::pwrite(file_descriptor_, source, static_cast<size_t>(left), position);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) Fail{path_, error_code_}(name, "cannot write: " + errno_text(errno));
    source += done, position += done, left -= done;
  }
  begin_write_back(position);
}

// The disk works while the next bytes are made; otherwise all of its work would be left to close().
// Only a hint: errors are fsync's to report.
void Hdf5Writer::begin_write_back(int64_t position) {
  if (position - written_back_ < kWriteBackBytes) return;
  ::sync_file_range(file_descriptor_, written_back_, position - written_back_,
                    SYNC_FILE_RANGE_WRITE);
  written_back_ = position;
}

void Hdf5Writer::write_attribute(const std::string& object, const std::string& name,
                                 const Hdf5Attribute& value) {
  const Fail fail{path_, error_code_};
  const bool is_text = std::holds_alternative<std::string>(value);
  const std::string text = is_text ? std::get<std::string>(value) : "";
  check(text.size() < kMaxAttributeBytes, "hdf5 attribute '%s': text of %d bytes", name,
        text.size());
  const Handle type(is_text                                  ? H5Tcopy(H5T_C_S1)
                    : std::holds_alternative<int64_t>(value) ? H5Tcopy(H5T_STD_I64LE)
                                                             : H5Tcopy(H5T_IEEE_F64LE),
                    H5Tclose);
  if (is_text) H5Tset_size(type.get(), text.size() + 1);  // a fixed length, with the final NUL
  const void* source = text.c_str();
  if (const auto* integer = std::get_if<int64_t>(&value)) source = integer;
  if (const auto* real = std::get_if<double>(&value)) source = real;
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(
      H5Acreate_by_name(file_, object.empty() ? "/" : object.c_str(), name.c_str(), type.get(),
                        space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
      H5Aclose);
  if (!attribute.ok() || H5Awrite(attribute.get(), type.get(), source) < 0) {
    fail(object, absl::StrFormat("cannot write attribute '%s': %s", name, library_reason()));
  }
}

void Hdf5Writer::close() {
  const Fail fail{path_, error_code_};
  check(file_ >= 0, "%s: closed twice", path_);
  const hid_t file = std::exchange(file_, -1);
  if (H5Fclose(file) < 0) fail("cannot complete the file: " + library_reason());
  if (::fsync(file_descriptor_) != 0) fail("cannot make the file durable: " + errno_text(errno));
  const int descriptor = std::exchange(file_descriptor_, -1);
  if (::close(descriptor) != 0) fail("cannot close the file: " + errno_text(errno));
}

// ---------------------------------------------------------------------------------------- reading

// Walks over all objects once and fills the reader's maps.
struct Hdf5Walk {
  Hdf5Reader& reader;
  Fail fail;
  std::set<haddr_t> seen = {};

  void group(hid_t id, const std::string& prefix, int depth);
  void object(hid_t parent, const std::string& link, const std::string& path, int depth);
  void dataset(hid_t id, const std::string& path);
  Shape shape(hid_t id, const std::string& path) const;
  void attributes(hid_t id, const std::string& path);
  void attribute(hid_t owner, const std::string& path, const std::string& name);
};

void Hdf5Walk::group(hid_t id, const std::string& prefix, int depth) {
  if (depth > kMaxDepth) fail(prefix, "groups are nested too deeply");
  struct Links {
    std::vector<std::string> names;
    std::string not_hard;
  } links;
  const auto collect = [](hid_t, const char* name, const H5L_info_t* info, void* data) -> herr_t {
    auto& found = *static_cast<Links*>(data);
    found.names.emplace_back(name);
    if (info->type != H5L_TYPE_HARD) found.not_hard = name;
    return found.not_hard.empty() && found.names.size() <= kMaxObjects ? 0 : 1;
  };
  if (H5Literate(id, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &links) < 0) {
    fail(prefix, "cannot list the group: " + library_reason());
  }
  if (!links.not_hard.empty()) fail(prefix + links.not_hard, "soft and external links are refused");
  attributes(id, prefix.empty() ? "" : prefix.substr(0, prefix.size() - 1));
  for (const std::string& link : links.names) object(id, link, prefix + link, depth);
}

void Hdf5Walk::object(hid_t parent, const std::string& link, const std::string& path, int depth) {
  H5O_info_t info;
  if (H5Oget_info_by_name2(parent, link.c_str(), &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0) {
    fail(path, "damaged object: " + library_reason());
  }
  if (!seen.insert(info.addr).second) fail(path, "an object that is linked twice is refused");
  if (seen.size() > kMaxObjects) fail("holds too many objects");
  if (info.type != H5O_TYPE_GROUP && info.type != H5O_TYPE_DATASET) {
    fail(path, "neither a group nor a dataset");
  }
  const Handle opened(H5Oopen(parent, link.c_str(), H5P_DEFAULT), H5Oclose);
  if (!opened.ok()) fail(path, "cannot open: " + library_reason());
  if (info.type == H5O_TYPE_GROUP) return group(opened.get(), path + "/", depth + 1);
  dataset(opened.get(), path);
  attributes(opened.get(), path);
}

void Hdf5Walk::dataset(hid_t id, const std::string& path) {
  // Storage before extent: asking a virtual dataset for its extent may open other files.
  const Handle creation(H5Dget_create_plist(id), H5Pclose);
  if (!creation.ok()) fail(path, "damaged dataset: " + library_reason());
  if (H5Pget_layout(creation.get()) != H5D_CONTIGUOUS) {
    fail(path, "only contiguous datasets are read (not chunked, compact or virtual)");
  }
  if (H5Pget_external_count(creation.get()) != 0) fail(path, "external storage is refused");
  if (H5Pget_nfilters(creation.get()) != 0) fail(path, "filters are refused");
  const Handle type(H5Dget_type(id), H5Tclose);
  Hdf5Dataset found;
  bool known = false;
  for (int i = 0; i < kNumTypes && type.ok(); ++i) {
    const auto candidate = static_cast<Hdf5Type>(i);
    if (H5Tequal(type.get(), file_type(candidate)) <= 0) continue;
    found.type = candidate;
    known = true;
  }
  if (!known) fail(path, "its element type is not one of u8 u16 u32 i32 i64 f32 f64 (LE)");
  found.shape = shape(id, path);
  found.size_bytes = checked_bytes(found.shape, size_bytes(found.type));
  if (found.size_bytes < 0) fail(path, "its size overflows");
  found.num_elements = found.size_bytes / size_bytes(found.type);
  const haddr_t offset = found.size_bytes == 0 ? 0 : H5Dget_offset(id);
  if (offset == HADDR_UNDEF) fail(path, "its elements were never written");
  const auto file_size = static_cast<uint64_t>(reader.file_size_bytes_);
  if (offset > file_size || static_cast<uint64_t>(found.size_bytes) > file_size - offset) {
    fail(path, absl::StrFormat("%d bytes at offset %d do not fit into the file of %d bytes",
                               found.size_bytes, offset, file_size));
  }
  found.offset_bytes = static_cast<int64_t>(offset);
  reader.datasets_[path] = found;
}

Shape Hdf5Walk::shape(hid_t id, const std::string& path) const {
  const Handle space(H5Dget_space(id), H5Sclose);
  const H5S_class_t kind = space.ok() ? H5Sget_simple_extent_type(space.get()) : H5S_NO_CLASS;
  if (kind == H5S_SCALAR) return {};
  const int num_dims = kind == H5S_SIMPLE ? H5Sget_simple_extent_ndims(space.get()) : -1;
  if (num_dims < 0 || num_dims > kMaxDims) {
    fail(path, absl::StrFormat("has no shape of at most %d dims", kMaxDims));
  }
  std::array<hsize_t, kMaxDims> dims{};
  if (H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr) < 0) {
    fail(path, "damaged shape: " + library_reason());
  }
  // A size beyond int64_t turns negative and is refused with the overflowing ones.
  return Shape(dims.begin(), dims.begin() + num_dims);
}

void Hdf5Walk::attributes(hid_t id, const std::string& path) {
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5A_info_t*, void* data) -> herr_t {
    return static_cast<std::vector<std::string>*>(data)->emplace_back(name), 0;
  };
  if (H5Aiterate2(id, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names) < 0) {
    fail(path, "cannot list its attributes: " + library_reason());
  }
  for (const std::string& name : names) attribute(id, path, name);
}

void Hdf5Walk::attribute(hid_t owner, const std::string& path, const std::string& name) {
  const Handle attribute(H5Aopen(owner, name.c_str(), H5P_DEFAULT), H5Aclose);
  const Handle type(attribute.ok() ? H5Aget_type(attribute.get()) : -1, H5Tclose);
  const Handle space(attribute.ok() ? H5Aget_space(attribute.get()) : -1, H5Sclose);
  const std::string label = absl::StrFormat("attribute '%s'", name);
  if (!type.ok() || !space.ok()) fail(path, label + " is damaged: " + library_reason());
  if (H5Sget_simple_extent_type(space.get()) != H5S_SCALAR) fail(path, label + " is not a scalar");
  const size_t bytes = H5Tget_size(type.get());
  herr_t read = -1;
  Hdf5Attribute value;
  if (H5Tequal(type.get(), H5T_STD_I64LE) > 0) {
    read = H5Aread(attribute.get(), H5T_NATIVE_INT64, &value.emplace<int64_t>());
  } else if (H5Tequal(type.get(), H5T_IEEE_F64LE) > 0) {
    read = H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value.emplace<double>());
  } else if (H5Tget_class(type.get()) == H5T_STRING && H5Tis_variable_str(type.get()) == 0 &&
             bytes <= kMaxAttributeBytes) {
    std::string text(bytes, '\0');
    read = H5Aread(attribute.get(), type.get(), text.data());
    value = std::string(text.c_str());
  } else {
    fail(path, label + " is neither i64, f64 nor text of a fixed length");
  }
  if (read < 0) fail(path, label + " cannot be read: " + library_reason());
  reader.attributes_[path][name] = value;
}

Hdf5Reader::Hdf5Reader(const std::string& path, ExitCode error_code)
    : path_(path), error_code_(error_code) {
  const Fail fail{path_, error_code_};
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  file_descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_descriptor_ < 0) fail("cannot open the file: " + errno_text(errno));
  try {
    struct stat status {};
    if (::fstat(file_descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      fail("not a regular file");
    }
    file_size_bytes_ = status.st_size;
    unsigned char block[kHdf5SuperblockBytes] = {};
    const ssize_t size = ::pread(file_descriptor_, block, sizeof(block), 0);
    const std::span<const unsigned char> read(block, size < 0 ? 0 : static_cast<size_t>(size));
    const std::string problem = superblock_problem(read, file_size_bytes_);
    if (!problem.empty()) fail(problem);
    prepare_library();
    H5PLset_loading_state(0);  // no plugin is ever loaded for a file
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    H5Pset_file_locking(access.get(), false, true);
    const Handle file(
        H5Fopen(descriptor_path(file_descriptor_).c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
    if (!file.ok()) fail("cannot open the HDF5 file: " + library_reason());
    const Handle root(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose);
    if (!root.ok()) fail("cannot open the root group: " + library_reason());
    Hdf5Walk{*this, fail}.group(root.get(), "", 0);
  } catch (...) {
    ::close(file_descriptor_);
    throw;
  }
}

Hdf5Reader::~Hdf5Reader() { ::close(file_descriptor_); }

const Hdf5Dataset& Hdf5Reader::dataset(const std::string& name) const {
  const auto found = datasets_.find(name);
  if (found == datasets_.end()) Fail{path_, error_code_}("has no dataset '" + name + "'");
  return found->second;
}

void Hdf5Reader::check_type(const std::string& dataset_name, Hdf5Type type) const {
  const Hdf5Type is = dataset(dataset_name).type;
  if (is == type) return;
  Fail{path_, error_code_}(dataset_name,
                           absl::StrFormat("holds %s where %s is expected", name(is), name(type)));
}

void Hdf5Reader::read(const std::string& name, int64_t first, int64_t count, void* elements) const {
  const Fail fail{path_, error_code_};
  const Hdf5Dataset& found = dataset(name);
  check_range(found, name, first, count);
  const int64_t element_bytes = caravan::size_bytes(found.type);
  char* destination = static_cast<char*>(elements);
  int64_t position = found.offset_bytes + first * element_bytes;
  int64_t left = count * element_bytes;
  while (left > 0) {
    const ssize_t done =
        ::pread(file_descriptor_, destination, static_cast<size_t>(left), position);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(name, "cannot read: " + errno_text(errno));
    if (done == 0) fail(name, "the file became shorter while it was read");
    destination += done, position += done, left -= done;
  }
}

bool Hdf5Reader::has_attribute(const std::string& object, const std::string& name) const {
  const auto found = attributes_.find(object);
  return found != attributes_.end() && found->second.count(name) > 0;
}

template <typename T>
const T& Hdf5Reader::attribute(const std::string& object, const std::string& name,
                               const char* kind) const {
  const Fail fail{path_, error_code_};
  if (!has_attribute(object, name)) {
    fail(object, absl::StrFormat("attribute '%s' is missing", name));
  }
  const T* value = std::get_if<T>(&attributes_.at(object).at(name));
  if (value == nullptr) fail(object, absl::StrFormat("attribute '%s' is not %s", name, kind));
  return *value;
}

int64_t Hdf5Reader::attribute_int(const std::string& object, const std::string& name) const {
  return attribute<int64_t>(object, name, "an integer");
}

double Hdf5Reader::attribute_double(const std::string& object, const std::string& name) const {
  return attribute<double>(object, name, "a number");
}

std::string Hdf5Reader::attribute_string(const std::string& object, const std::string& name) const {
  return attribute<std::string>(object, name, "text");
}

}  // namespace caravan
