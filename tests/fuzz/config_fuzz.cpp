// Any text as a configuration: it is refused with one line, or it is read, and then what is written
// back reads as the same.
#include <cstdint>
#include <string>

#include "launch/config.h"
#include "tests/fuzz/expect.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace caravan;
  using fuzz::expect;
  const std::string text(reinterpret_cast<const char*>(data), size);
  Config config;
  if (!fuzz::succeeds(ExitCode::config, [&] { config = parse_config(text, "fuzz.yaml"); })) {
    return 0;
  }
  const std::string written = to_yaml(config);
  Config again;
  const bool readable =
      fuzz::succeeds(ExitCode::config, [&] { again = parse_config(written, "written.yaml"); });
  expect(readable, "what is written can be read", written);
  expect(again == config, "what is written reads as the same", written);
  expect(to_yaml(again) == written, "writing is stable", written);
  expect(changed_keys(config, again).empty(), "nothing changed", written);
  for (const int world_size : {1, 2}) {
    fuzz::succeeds(ExitCode::config, [&] { validate(config, world_size); });
  }
  return 0;
}
