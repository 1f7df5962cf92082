#include "data/readable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "data/durable_file.h"

namespace caravan {

ReadableFile::ReadableFile(const std::string& path, ExitCode error_code, Links links)
    : path_(path), error_code_(error_code) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
  descriptor_ = ::open(path.c_str(), links == Links::refused ? flags | O_NOFOLLOW : flags);
  if (descriptor_ < 0) fail("cannot open");
  struct stat status {};
  if (::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode)) {
    size_bytes_ = status.st_size;
    return;
  }
  ::close(descriptor_);
  throw Error(error_code_, path + ": not a regular file");
}

ReadableFile::~ReadableFile() { ::close(descriptor_); }

void ReadableFile::fail(const char* what) const {
  const int number = errno;
  throw Error(error_code_, absl::StrFormat("%s: %s: %s", path_, what, errno_text(number)));
}

void ReadableFile::read(int64_t offset, int64_t count, void* bytes) const {
  char* destination = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::pread(descriptor_, destination, static_cast<size_t>(count), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("cannot read");
    if (done == 0) throw Error(error_code_, path_ + ": became shorter while it was read");
    destination += done, offset += done, count -= done;
  }
}

}  // namespace caravan
