#include "launch/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

namespace caravan {

RunLock::RunLock(const std::string& output_dir) {
  const std::string path = (std::filesystem::path(output_dir) / "lock").string();
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw std::system_error(errno, std::generic_category());
  is_held_ = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
}

RunLock::~RunLock() { ::close(descriptor_); }

}  // namespace caravan
