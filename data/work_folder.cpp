#include "data/work_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "data/durable_file.h"

namespace caravan {

namespace fs = std::filesystem;

WorkFolder::WorkFolder(const std::string& output)
    : output_(fs::path(output + "/").parent_path().string()), path_(output_ + ".partial") {
  if (output.empty()) throw config_error("--output is empty; give the name of a folder");
  std::error_code error;
  if (fs::exists(output_) && !(fs::is_directory(output_) && fs::is_empty(output_, error))) {
    throw config_error(
        absl::StrFormat("--output: %s exists already: remove it or choose another name", output_));
  }
  fs::create_directories(path_, error);
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (error || lock_ < 0 || ::access(path_.c_str(), W_OK) != 0) {
    throw config_error(absl::StrFormat("--output: cannot write to %s: %s", path_,
                                       error ? error.message() : std::strerror(errno)));
  }
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw config_error(absl::StrFormat("--output: another process is writing %s", path_));
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(path_)) fs::remove_all(entry);
}

WorkFolder::~WorkFolder() {
  std::error_code ignored;
  if (!published_) fs::remove_all(path_, ignored);
  ::close(lock_);
}

void WorkFolder::publish(ExitCode error_code) {
  sync_folder(path_, error_code);
  rename_durably(path_, output_, error_code);
  published_ = true;
}

}  // namespace caravan
