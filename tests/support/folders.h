// Where tests find what they compare with: in the source tree, or below the folder that the
// variable CARAVAN_TEST_FOLDER names, which has the layout of a bundle (cmake/bundle.cmake).
#pragma once

#include <cstdlib>
#include <string>

namespace caravan {

inline std::string bundle_folder() {
  const char* folder = std::getenv("CARAVAN_TEST_FOLDER");
  return folder != nullptr ? folder : "";
}

// Has tests/golden and configs.
inline std::string source_folder() {
  const std::string bundle = bundle_folder();
  return bundle.empty() ? CARAVAN_SOURCE_DIR : bundle;
}

}  // namespace caravan
