// What checkpoints need of files and folders beyond data/durable_file.h: replacing a folder, and
// reading without following links. Errors are checkpoint errors that name the path and the errno.
#pragma once

#include <cstdint>
#include <string>

namespace caravan {

// Gives folder `from` the name `to`. When `to` exists, the new content replaces it and the name
// that the old content has now is returned ("" otherwise). Atomic where the file system can swap
// two names; elsewhere (NFS) a crash between two renames leaves only the old content's new name.
std::string publish_folder(const std::string& from, const std::string& to);

// A regular file (not a link), open for reading at any place. Any number of threads.
class ReadableFile {
 public:
  explicit ReadableFile(const std::string& path);
  ~ReadableFile();
  ReadableFile(const ReadableFile&) = delete;
  ReadableFile& operator=(const ReadableFile&) = delete;

  int64_t size_bytes() const { return size_bytes_; }  // when it was opened
  // Bytes [offset, offset + count) into `bytes`; an error when the file ends before.
  void read(int64_t offset, int64_t count, char* bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  int64_t size_bytes_ = 0;
};

// The whole content of a regular file (not a link) of at most `max_bytes`.
std::string read_small_file(const std::string& path, int64_t max_bytes);

// Bytes that this user may still write to the file system of a folder.
int64_t available_bytes(const std::string& folder);

// Bytes of a regular file (not a link).
int64_t file_size_bytes(const std::string& path);

}  // namespace caravan
