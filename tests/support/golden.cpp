#include "tests/support/golden.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tests/support/folders.h"

namespace caravan {
namespace {

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// "line 12:\n  is     ...\n  golden ..."
std::string first_difference(const std::string& actual, const std::string& golden) {
  std::istringstream actual_lines(actual), golden_lines(golden);
  for (int number = 1;; ++number) {
    std::string is, was;
    const bool more = static_cast<bool>(std::getline(actual_lines, is));
    const bool had_more = static_cast<bool>(std::getline(golden_lines, was));
    if (!more && !had_more) return "only the ends of lines differ";
    if (more == had_more && is == was) continue;
    return "line " + std::to_string(number) + ":\n  is     " + (more ? is : "(the end)") +
           "\n  golden " + (had_more ? was : "(the end)");
  }
}

}  // namespace

void expect_golden(const std::string& file, const std::string& text) {
  const std::string path = source_folder() + "/tests/golden/" + file;
  if (const char* update = std::getenv("CARAVAN_UPDATE_GOLDEN"); update && *update == '1') {
    std::ofstream(path) << text;
    return;
  }
  const std::string golden = read_file(path);
  EXPECT_FALSE(golden.empty()) << path << " is missing; CARAVAN_UPDATE_GOLDEN=1 makes it";
  if (text == golden) return;
  ADD_FAILURE() << path << " differs, " << first_difference(text, golden)
                << "\nIf this is meant, CARAVAN_UPDATE_GOLDEN=1 writes it anew.";
}

}  // namespace caravan
