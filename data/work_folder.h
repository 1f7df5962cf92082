// A folder that appears whole or not at all: written as OUTPUT.partial, and renamed at the end. A
// lock keeps others from writing the same one; what a killed process left of it is removed.
#pragma once

#include <string>

#include "runtime/error.h"

namespace caravan {

class WorkFolder {
 public:
  // `output` must not exist yet, or be an empty folder. Config errors that begin with "--output".
  explicit WorkFolder(const std::string& output);
  ~WorkFolder();  // without publish(): removes it
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  // Gives it its name. The files in it must have been made durable.
  void publish(ExitCode error_code);

 private:
  std::string output_;
  std::string path_;
  int lock_ = -1;
  bool published_ = false;
};

}  // namespace caravan
