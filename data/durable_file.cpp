#include "data/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace caravan {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what, ExitCode error_code) {
  throw Error(error_code, absl::StrFormat("%s: cannot %s: %s", path, what, std::strerror(errno)));
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags)
      : value_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  bool ok() const { return value_ >= 0; }

 private:
  int value_;
};

std::string folder_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

void write_all(const Descriptor& file, const std::string& path, std::string_view contents,
               ExitCode error_code) {
  while (!contents.empty()) {
    const ssize_t written = ::write(file.get(), contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(path, "write", error_code);
    contents.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

std::string errno_text(int number) {
  return absl::StrFormat("%s (errno %d)", std::strerror(number), number);
}

std::string read_file(const std::string& path, size_t limit_bytes, ExitCode error_code) {
  // Without O_NONBLOCK, a FIFO that nobody writes to would be waited for here.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  struct stat status {};
  if (!file.ok() || ::fstat(file.get(), &status) != 0) fail(path, "open", error_code);
  if (!S_ISREG(status.st_mode)) throw Error(error_code, path + ": is not a regular file: name one");
  if (static_cast<size_t>(status.st_size) > limit_bytes) {
    throw Error(error_code, absl::StrFormat("%s: %d bytes are more than the %d that such a file "
                                            "may have: is it the right one?",
                                            path, status.st_size, limit_bytes));
  }
  std::string contents(static_cast<size_t>(status.st_size), '\0');
  size_t done = 0;
  while (done < contents.size()) {
    const ssize_t count = ::read(file.get(), contents.data() + done, contents.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path, "read", error_code);
    if (count == 0) break;  // became shorter meanwhile
    done += static_cast<size_t>(count);
  }
  contents.resize(done);
  return contents;
}

void write_file_durably(const std::string& path, std::string_view contents, ExitCode error_code) {
  const std::string temporary = path + ".tmp";
  {
    const Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.ok()) fail(temporary, "create", error_code);
    write_all(file, temporary, contents, error_code);
    if (::fsync(file.get()) != 0) fail(temporary, "fsync", error_code);
  }
  rename_durably(temporary, path, error_code);
}

void rename_durably(const std::string& from, const std::string& to, ExitCode error_code) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail(to, "rename to this name", error_code);
  sync_folder(folder_of(to), error_code);
}

void sync_folder(const std::string& path, ExitCode error_code) {
  const Descriptor folder(path, O_RDONLY | O_DIRECTORY);
  if (!folder.ok()) fail(path, "open the folder", error_code);
  if (::fsync(folder.get()) != 0) fail(path, "fsync the folder", error_code);
}

}  // namespace caravan
