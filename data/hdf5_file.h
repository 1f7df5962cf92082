// HDF5 files as plain containers of arrays: Hdf5Writer makes them, Hdf5Reader opens them. Only what
// the token files and checkpoints need: contiguous datasets of numbers, groups, scalar attributes.
// No chunks, no filters, no links, nothing that makes a reader execute or follow what a file says.
//
// Threads: Debian's HDF5 library is not thread-safe, so in the whole process only one thread at a
// time may be inside a member of Hdf5Writer or the constructor of Hdf5Reader. An open Hdf5Reader
// does not touch the library any more: its members may be called from any number of threads.
//
// Errors: `Error` with the exit code given at opening; one line that names the file, the dataset
// and the reason.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "runtime/error.h"
#include "runtime/types.h"

namespace caravan {

// Element types in a file (little-endian). bf16 travels as u16 with an attribute that says so.
enum class Hdf5Type : uint8_t { u8, u16, u32, i32, i64, f32, f64 };
int64_t size_bytes(Hdf5Type type);
std::string_view name(Hdf5Type type);  // "u16"

template <typename T>
constexpr Hdf5Type hdf5_type() {
  if constexpr (std::is_same_v<T, uint8_t>)
    return Hdf5Type::u8;
  else if constexpr (std::is_same_v<T, uint16_t>)
    return Hdf5Type::u16;
  else if constexpr (std::is_same_v<T, uint32_t>)
    return Hdf5Type::u32;
  else if constexpr (std::is_same_v<T, int32_t>)
    return Hdf5Type::i32;
  else if constexpr (std::is_same_v<T, int64_t>)
    return Hdf5Type::i64;
  else if constexpr (std::is_same_v<T, float>)
    return Hdf5Type::f32;
  else {
    static_assert(std::is_same_v<T, double>, "no HDF5 type for this C++ type");
    return Hdf5Type::f64;
  }
}

struct Hdf5Dataset {
  Hdf5Type type = Hdf5Type::u8;
  Shape shape;               // {} is a scalar
  int64_t num_elements = 0;  // row-major and dense
  int64_t size_bytes = 0;
  int64_t offset_bytes = 0;  // where the elements lie in the file: for mmap and pread. Made by
                             // Hdf5Writer: a multiple of 4096.
};

using Hdf5Attribute = std::variant<int64_t, double, std::string>;

// Writes a new file. Names may have groups ("optimizer/m/wq"); an attribute's object is the name of
// a dataset, or "" for the file itself. A file that was not `close()`d is refused by Hdf5Reader.
class Hdf5Writer {
 public:
  // `path` must not exist yet (remove or rename first: a reader may have the old one mapped).
  Hdf5Writer(const std::string& path, ExitCode error_code);
  ~Hdf5Writer();  // without close(): leaves the unfinished file behind
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;

  // Makes a dataset whose elements are undefined until written.
  void create(const std::string& dataset, Hdf5Type type, const Shape& shape);
  // Writes elements [first, first + count) of a created dataset, counted in row-major order.
  void write(const std::string& dataset, int64_t first, int64_t count, const void* elements);
  template <typename T>
  void write(const std::string& dataset, int64_t first, std::span<const T> elements) {
    check_type(dataset, hdf5_type<T>());
    write(dataset, first, static_cast<int64_t>(elements.size()), elements.data());
  }
  // create() and write() of a whole 1-D dataset.
  template <typename T>
  void write_vector(const std::string& dataset, std::span<const T> elements) {
    create(dataset, hdf5_type<T>(), {static_cast<int64_t>(elements.size())});
    write(dataset, 0, elements);
  }
  void write_attribute(const std::string& object, const std::string& name,
                       const Hdf5Attribute& value);
  const Hdf5Dataset& dataset(const std::string& name) const { return created(name); }
  // Completes the file and makes it durable (fsync of the file, not of its folder).
  void close();

 private:
  const Hdf5Dataset& created(const std::string& dataset) const;
  void check_type(const std::string& dataset, Hdf5Type type) const;
  void begin_write_back(int64_t position);

  std::string path_;
  ExitCode error_code_;
  int64_t written_back_ = 0;  // the disk was told to write what lies before
  int file_descriptor_ = -1;  // elements go past the library: exact errno, no copies
  int64_t file_ = -1;         // hid_t
  std::map<std::string, Hdf5Dataset> datasets_;
};

// A file opened for reading, checked whole before the constructor returns. Refused: anything but a
// regular file; a superblock other than version 3, or one not closed, or of another file size;
// links that are not hard; objects linked twice; datasets that are virtual, external, chunked,
// filtered, never written or beyond the end of the file; element types not listed above.
class Hdf5Reader {
 public:
  Hdf5Reader(const std::string& path, ExitCode error_code);
  ~Hdf5Reader();
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;

  const std::string& path() const { return path_; }
  int64_t file_size_bytes() const { return file_size_bytes_; }
  const std::map<std::string, Hdf5Dataset>& datasets() const { return datasets_; }
  bool has_dataset(const std::string& name) const { return datasets_.count(name) > 0; }
  const Hdf5Dataset& dataset(const std::string& name) const;  // an error when missing

  // Reads elements [first, first + count), counted in row-major order.
  void read(const std::string& dataset, int64_t first, int64_t count, void* elements) const;
  template <typename T>
  void read(const std::string& dataset, int64_t first, std::span<T> elements) const {
    check_type(dataset, hdf5_type<T>());
    read(dataset, first, static_cast<int64_t>(elements.size()), elements.data());
  }
  // All elements, whatever the shape. The size is bounded by the size of the file.
  template <typename T>
  std::vector<T> read_vector(const std::string& name) const {
    check_type(name, hdf5_type<T>());
    std::vector<T> elements(static_cast<size_t>(dataset(name).num_elements));
    read<T>(name, 0, elements);
    return elements;
  }

  // `object` as in write_attribute. Missing, or of another kind: an error.
  bool has_attribute(const std::string& object, const std::string& name) const;
  int64_t attribute_int(const std::string& object, const std::string& name) const;
  double attribute_double(const std::string& object, const std::string& name) const;
  std::string attribute_string(const std::string& object, const std::string& name) const;

 private:
  friend struct Hdf5Walk;  // fills the maps
  template <typename T>
  const T& attribute(const std::string& object, const std::string& name, const char* kind) const;
  void check_type(const std::string& dataset, Hdf5Type type) const;

  std::string path_;
  ExitCode error_code_;
  int file_descriptor_ = -1;
  int64_t file_size_bytes_ = 0;
  std::map<std::string, Hdf5Dataset> datasets_;
  std::map<std::string, std::map<std::string, Hdf5Attribute>> attributes_;  // by object
};

}  // namespace caravan
