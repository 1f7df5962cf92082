// A regular file, open for reading at any place. Nothing is mapped: what is resident stays known,
// and a file that is cut off later is an error and no signal. Any number of threads.
// Errors: of the code that is asked for; they name the path and the errno.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/error.h"

namespace caravan {

enum class Links : uint8_t { refused, followed };

class ReadableFile {
 public:
  // What is no regular file (a folder, a FIFO) is an error, too.
  explicit ReadableFile(const std::string& path, ExitCode error_code = ExitCode::checkpoint,
                        Links links = Links::refused);
  ~ReadableFile();
  ReadableFile(const ReadableFile&) = delete;
  ReadableFile& operator=(const ReadableFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t size_bytes() const { return size_bytes_; }  // when it was opened
  // Bytes [offset, offset + count) into `bytes`; an error when the file ends before.
  void read(int64_t offset, int64_t count, void* bytes) const;

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_;
  ExitCode error_code_;
  int descriptor_ = -1;
  int64_t size_bytes_ = 0;
};

}  // namespace caravan
