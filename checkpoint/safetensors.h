// Reading safetensors files: a box of a tensor at a time, as f32, out of one file or of a folder of
// shards with an index.
//
// With pread and not mmap: what is resident stays known (headers, and a buffer of 1 MiB per
// folder), and a file that is cut off while it is read is an error and no signal. Only the bytes of
// the box are read. Threads: one at a time. Errors: checkpoint errors that name file and tensor.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/posix_file.h"
#include "checkpoint/safetensors_header.h"

namespace caravan {

// One file. Its header is read and checked at once; the file itself is only open between the first
// read and close().
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);  // a regular file, not a link

  const std::string& path() const { return path_; }
  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  int64_t data_bytes() const { return file_bytes_ - data_begin_; }

  // The box of one of tensors(), dense and row-major, into `out`; from F32, F16 or BF16. `buffer`
  // is only used inside, and must not be empty. Returns the bytes that were read.
  int64_t read(const SafetensorsTensor& tensor, const Box& box, std::vector<char>& buffer,
               float* out);
  // Bytes [begin, begin + count) of the data.
  void read_bytes(int64_t begin, int64_t count, char* bytes);

  bool is_open() const { return file_ != nullptr; }
  void close() { file_.reset(); }

 private:
  void open();

  std::string path_;
  int64_t file_bytes_ = 0;
  int64_t data_begin_ = 0;
  std::vector<SafetensorsTensor> tensors_;
  std::unique_ptr<ReadableFile> file_;
};

// model.safetensors of a folder, or all shards of its model.safetensors.index.json. The index and
// the headers of the shards must agree, both ways. Paths: see data/folder_path.h.
class SafetensorsFolder {
 public:
  explicit SafetensorsFolder(const std::string& folder);
  SafetensorsFolder(const SafetensorsFolder&) = delete;
  SafetensorsFolder& operator=(const SafetensorsFolder&) = delete;

  const std::string& path() const { return folder_; }
  std::vector<std::string> names() const;  // of all tensors, ordered
  bool has(const std::string& tensor) const { return places_.count(tensor) > 0; }
  const SafetensorsTensor& tensor(const std::string& name) const;  // an error when missing
  const std::string& file_of(const std::string& tensor) const;     // its path

  // The box of the tensor, dense and row-major, into `out`.
  void read(const std::string& tensor, const Box& box, float* out);
  int64_t bytes_read() const { return bytes_read_; }  // of tensors, so far

 private:
  struct Place {
    size_t file = 0;
    size_t tensor = 0;
  };
  void add_file(const std::string& name);
  void add_shards(const std::string& index_path);
  const Place& place(const std::string& tensor) const;

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place> places_;
  std::vector<char> buffer_;
  size_t num_open_ = 0;
  int64_t bytes_read_ = 0;
};

}  // namespace caravan
