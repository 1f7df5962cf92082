#include "checkpoint/posix_file.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "data/durable_file.h"
#include "runtime/error.h"

namespace caravan {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  const int number = errno;
  throw checkpoint_error(absl::StrFormat("%s: %s: %s", path, what, errno_text(number)));
}

}  // namespace

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
  const ReadableFile file(path);
  if (file.size_bytes() > max_bytes) {
    throw checkpoint_error(
        absl::StrFormat("%s: %d bytes; at most %d are read", path, file.size_bytes(), max_bytes));
  }
  std::string text(static_cast<size_t>(file.size_bytes()), '\0');
  file.read(0, file.size_bytes(), text.data());
  return text;
}

int64_t available_bytes(const std::string& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) fail(folder, "cannot ask for free space");
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

int64_t file_size_bytes(const std::string& path) { return ReadableFile(path).size_bytes(); }

}  // namespace caravan
