#include "checkpoint/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "runtime/error.h"

namespace caravan {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  const int number = errno;
  throw checkpoint_error(absl::StrFormat("%s: %s: %s", path, what, errno_text(number)));
}

// A descriptor, closed at the end of the scope.
class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) {
    id_ = ::open(path.c_str(), flags | O_CLOEXEC);
    if (id_ < 0) fail(path, "cannot open");
  }
  ~Descriptor() {
    if (id_ >= 0) ::close(id_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return id_; }

 private:
  int id_;
};

int64_t regular_size(int descriptor, const std::string& path) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) fail(path, "cannot stat");
  if (!S_ISREG(status.st_mode)) throw checkpoint_error(path + ": not a regular file");
  return status.st_size;
}

// O_NONBLOCK: opening a FIFO must not wait for a writer.
constexpr int kReadFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;

}  // namespace

std::string errno_text(int number) {
  return absl::StrFormat("%s (errno %d)", std::strerror(number), number);
}

std::string publish_folder(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return from;
  if (errno != ENOENT && errno != EINVAL && errno != ENOSYS) fail(to, "cannot rename into place");
  const std::string aside = from + "-replaced";
  const bool replaces = ::access(to.c_str(), F_OK) == 0;
  if (replaces && ::rename(to.c_str(), aside.c_str()) != 0) fail(to, "cannot move aside");
  if (::rename(from.c_str(), to.c_str()) == 0) return replaces ? aside : "";
  const int number = errno;
  if (replaces) std::rename(aside.c_str(), to.c_str());  // at best as it was before
  errno = number;
  fail(to, "cannot rename into place");
}

std::string read_small_file(const std::string& path, int64_t max_bytes) {
  const Descriptor file(path, kReadFlags);
  const int64_t size = regular_size(file.get(), path);
  if (size > max_bytes) {
    throw checkpoint_error(
        absl::StrFormat("%s: %d bytes; at most %d are read", path, size, max_bytes));
  }
  std::string text(static_cast<size_t>(size), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t done = ::read(file.get(), text.data() + filled, text.size() - filled);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(path, "cannot read");
    if (done == 0) throw checkpoint_error(path + ": became shorter while it was read");
    filled += static_cast<size_t>(done);
  }
  return text;
}

int64_t available_bytes(const std::string& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) fail(folder, "cannot ask for free space");
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

int64_t file_size_bytes(const std::string& path) {
  return regular_size(Descriptor(path, kReadFlags).get(), path);
}

}  // namespace caravan
