// Any text as a manifest and as a rank's report, as it is and with its checksum made right, so that
// changes reach what stands behind the checksum. What is read must be valid and come back the same
// after writing.
#include <cstdint>
#include <string>

#include "checkpoint/crc32c.h"
#include "checkpoint/manifest.h"
#include "tests/fuzz/expect.h"

namespace {

using namespace caravan;

// The text up to its checksum, with the right one.
std::string with_checksum(const std::string& text) {
  const std::string body = text.substr(0, text.rfind("\"crc32c\": "));
  return body + "\"crc32c\": \"" + crc32c_hex(crc32c(body.data(), body.size())) + "\"\n}\n";
}

void check_manifest(const std::string& text) {
  Manifest manifest;
  const auto decode = [&] { manifest = decode_manifest(text, "manifest.json"); };
  if (!fuzz::succeeds(ExitCode::checkpoint, decode)) return;
  validate(manifest, "what was accepted");
  fuzz::expect(total_bytes(manifest) >= 0, "the sum of sizes does not overflow");
  const std::string written = encode(manifest);
  // Not by ==: a NaN differs from itself.
  fuzz::expect(encode(decode_manifest(written, "written")) == written, "the same again", written);
}

void check_report(const std::string& text) {
  RankReport report;
  const auto decode = [&] { report = decode_rank_report(text, "rank 0"); };
  if (!fuzz::succeeds(ExitCode::checkpoint, decode)) return;
  const std::string written = encode(report);
  fuzz::expect(encode(decode_rank_report(written, "rank 0")) == written, "the same again", written);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  check_manifest(text);
  check_manifest(with_checksum(text));
  check_report(text);
  return 0;
}
