// Any text as a config.json: it is refused with one line, or it is read, and then what is written
// back reads as the same.
#include <cstdint>
#include <string>

#include "models/hf_config.h"
#include "tests/fuzz/expect.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace caravan;
  using fuzz::expect;
  const std::string text(reinterpret_cast<const char*>(data), size);
  HfConfig config;
  const auto read = [&] { config = read_hf_config(text, "config.json"); };
  if (!fuzz::succeeds(ExitCode::checkpoint, read)) return 0;
  expect(canonical(config.model) == config.model, "a canonical form stays as it is");
  // Some of what is read has no form that transformers takes.
  std::string written;
  const auto write = [&] { written = write_hf_config(config, DType::bf16, "0.1.0"); };
  if (!fuzz::succeeds(ExitCode::config, write)) return 0;
  config.tensor_prefix.clear();
  config.torch_dtype = "bfloat16";
  const HfConfig again = read_hf_config(written, "written");
  expect(again == config, "what is written reads as the same", written);
  expect(write_hf_config(again, DType::bf16, "0.1.0") == written, "writing is stable", written);
  expect(!write_generation_config(config).empty(), "ids of tokens are written");
  return 0;
}
