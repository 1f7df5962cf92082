// HDF5 files that a reader must refuse, one of each class, made with the C API of the library (and
// by changing bytes under a checksum that is made right again). Each has its trap at "d".
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace caravan::test {

struct HostileHdf5 {
  std::string name;
  std::string refusal;                           // part of the message that is due
  std::function<void(const std::string&)> make;  // path; replaces what is there
};

std::vector<HostileHdf5> hostile_hdf5_files();

}  // namespace caravan::test
