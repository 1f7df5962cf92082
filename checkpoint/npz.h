// NpzFile: arrays of numbers out of a .npz (a zip of .npy files, stored or deflated) or one .npy,
// as NumPy writes them. For reference outputs of other programs; it writes nothing.
//
// Nothing in a file is believed: an array must be exactly as large as its shape says, an entry no
// more than 1100 times what it is compressed to, and an array of a .npz that is read in order to
// its end must have its checksum. Elements are read in pieces, so that memory does not depend on
// the size of an array (read_integers aside, which returns one).
//
// Threads: one at a time. Errors: checkpoint_error, one line, with file and array.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/npy_header.h"

namespace caravan {

class NpzFile {
 public:
  // A .npy holds one array, whose name is that of the file without ".npy".
  explicit NpzFile(const std::string& path);
  ~NpzFile();
  NpzFile(const NpzFile&) = delete;
  NpzFile& operator=(const NpzFile&) = delete;

  bool has(const std::string& name) const { return entries_.count(name) > 0; }
  // Missing, or not an array of numbers: an error.
  const NpyArray& header(const std::string& name);

  // All elements of an array of i32 or i64.
  std::vector<int64_t> read_integers(const std::string& name);

  // Elements [first, first + out.size()), in row-major order, of an array of f16, f32 or f64; f64
  // is rounded. Reading on from where the last call ended costs no more than the bytes read;
  // going back in a deflated array begins anew.
  void read_floats(const std::string& name, int64_t first, std::span<float> out);

 private:
  class Bytes;       // of the file: a place in one entry
  class PlainBytes;  // of a .npy
  class ZipBytes;    // of a .npz
  struct Entry {
    uint64_t index = 0;  // in the zip
    int64_t size_bytes = 0;
    bool is_stored = true;
    bool has_header = false;
    NpyArray header = {};
  };

  std::string place(const std::string& name) const;
  Entry& entry(const std::string& name);
  void check_order(const std::string& name, const NpyArray& array) const;

  std::string path_;
  std::map<std::string, Entry> entries_;  // by name, without ".npy"
  std::unique_ptr<Bytes> bytes_;
  std::vector<char> piece_;
};

}  // namespace caravan
