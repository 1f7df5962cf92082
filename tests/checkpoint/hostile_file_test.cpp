// Hostile HDF5 files in place of a rank's file, under a manifest that fits them in size and
// checksums: what refuses them is the check of their structure.
#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/crc32c.h"
#include "checkpoint/verify.h"
#include "tests/checkpoint/support.h"
#include "tests/data/hostile_hdf5.h"

// HDF5 1.10 itself leaks what it had read when it refuses a damaged file; read by LeakSanitizer.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace caravan::test {
namespace {

constexpr char kFile[] = "rank-00000-of-00001.h5";

// Writes the manifest that says: the i32 tensor "d" of one element lies at `offset` of the file.
void write_fitting_manifest(const std::string& folder, int64_t offset) {
  const std::string bytes = read_bytes(folder + "/" + kFile);
  const auto at = static_cast<size_t>(offset);
  const uint32_t frame =
      crc32c(bytes.data() + at + 4, bytes.size() - at - 4, crc32c(bytes.data(), at));
  Manifest manifest{.header = header_of_step(1), .files = {}, .tensors = {}};
  manifest.files = {{kFile, static_cast<int64_t>(bytes.size()), frame}};
  const ShardRecord shard{{{0}, {1}}, kFile, offset, {crc32c(bytes.data() + at, 4)}};
  manifest.tensors = {{"d", DType::i32, {1}, {shard}}};
  write_bytes(folder + "/" + kManifestName, encode(manifest));
}

std::string refusal(const std::string& folder) {
  int32_t element = 0;
  return error_of([&] {
    CheckpointReader(folder).read({"d", DType::i32, {1}, {0}, {1}, &element});
  });
}

TEST(HostileFile, EachClassIsRefusedForItsStructure) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/" + kFile;
  for (const HostileHdf5& hostile : hostile_hdf5_files()) {
    hostile.make(path);
    write_fitting_manifest(folder.path(), 0);
    const std::string message = refusal(folder.path());
    EXPECT_EQ(message.find(path), 0u) << hostile.name << ": " << message;
    EXPECT_NE(message.find(hostile.refusal), std::string::npos) << hostile.name << ": " << message;
    const Verification verified = verify_checkpoint(folder.path());
    EXPECT_EQ(verified.damage, std::vector<std::string>{message}) << hostile.name;
  }
}

// The manifest that the test makes is one that loads, when the file is good.
TEST(HostileFile, AGoodFileUnderSuchAManifestLoads) {
  const TemporaryFolder folder;
  Hdf5Writer writer(folder.path() + "/" + kFile, ExitCode::checkpoint);
  writer.write_vector<int32_t>("d", std::vector<int32_t>{7});
  const int64_t offset = writer.dataset("d").offset_bytes;
  writer.close();
  write_fitting_manifest(folder.path(), offset);
  int32_t element = 0;
  CheckpointReader(folder.path()).read({"d", DType::i32, {1}, {0}, {1}, &element});
  EXPECT_EQ(element, 7);
  EXPECT_TRUE(verify_checkpoint(folder.path()).ok());
}

}  // namespace
}  // namespace caravan::test
