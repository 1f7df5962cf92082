// A folder of its own for a test. Not for the product: what it writes lies in the run folder.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "runtime/error.h"

namespace caravan {

// Made under `parent` where that can be written to, else under the system's temporary folder;
// removed with all its content.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent = "") {
    namespace fs = std::filesystem;
    const bool usable = !parent.empty() && ::access(parent.c_str(), W_OK | X_OK) == 0;
    const fs::path above = usable ? fs::path(parent) : fs::temp_directory_path();
    path_ = (above / "caravan-test-XXXXXX").string();
    check(::mkdtemp(path_.data()) != nullptr, "mkdtemp failed");
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace caravan
