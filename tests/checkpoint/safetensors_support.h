// What the tests of safetensors share.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {

inline void expect_part(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << "'" << message << "' lacks '" << part << "'";
}

// The first bytes of a file.
inline std::string length_of(uint64_t bytes) {
  std::string text(8, '\0');
  for (size_t i = 0; i < 8; ++i) text[i] = static_cast<char>(bytes >> 8 * i);
  return text;
}

inline std::vector<float> box_of(SafetensorsFolder& folder, const std::string& tensor,
                                 const Box& box) {
  std::vector<float> values(static_cast<size_t>(num_elements(box.extent)), -1.0f);
  folder.read(tensor, box, values.data());
  return values;
}

}  // namespace caravan::test
