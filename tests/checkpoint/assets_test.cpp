// Files that travel with a checkpoint: copied as they are, checked like everything else in it.
#include "checkpoint/assets.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/crc32c.h"
#include "checkpoint/directory.h"
#include "checkpoint/verify.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

class Assets : public testing::Test {
 protected:
  Assets() {
    fs::create_directory(folder_ / "model");
    for (const char* name : {"config.json", "tokenizer.json", "LICENSE.txt", "model.safetensors",
                             "notes.txt", ".hidden"}) {
      write_bytes(folder_ / "model/" + name, std::string("content of ") + name);
    }
  }

  std::vector<std::string> names(AssetKind kind) const {
    std::vector<std::string> result;
    for (const Asset& asset : list_assets(folder_ / "model", kind)) result.push_back(asset.name);
    return result;
  }

  // A checkpoint with the assets of the folder `model`.
  std::string save() const {
    const std::vector<TestTensor> model = small_model();
    SaveRequest request{.folder = folder_ / "checkpoints", .header = header_of_step(7)};
    request.assets = list_assets(folder_ / "model", AssetKind::model);
    std::vector<std::vector<char>> bytes;
    for (const TestTensor& tensor : model) {
      const Box box{Shape(tensor.shape.size(), 0), tensor.shape};
      bytes.push_back(box_bytes(tensor, box, 7));
      request.shards.push_back(
          {tensor.name, tensor.dtype, tensor.shape, box.offset, box.extent, bytes.back().data()});
    }
    const std::vector<std::string> reports = {write_rank(request, 0, 1)};
    return commit_save(request, reports).path;
  }

  TemporaryFolder folder_;
};

TEST_F(Assets, AreKnownByName) {
  EXPECT_EQ(names(AssetKind::tokenizer), std::vector<std::string>{"tokenizer.json"});
  EXPECT_EQ(names(AssetKind::model),
            (std::vector<std::string>{"LICENSE.txt", "config.json", "tokenizer.json"}));
  EXPECT_TRUE(list_assets(folder_ / "nowhere", AssetKind::model).empty());
}

TEST_F(Assets, ALinkToAnotherFolderIsRefused) {
  write_bytes(folder_ / "secret", "key");
  fs::create_symlink(folder_ / "secret", folder_ / "model/LICENSE");
  const std::string message = error_of([&] { names(AssetKind::model); });
  EXPECT_NE(message.find("model/LICENSE"), std::string::npos) << message;
}

TEST_F(Assets, AreInTheCheckpointByteForByte) {
  const std::string path = save();
  const Manifest manifest = read_committed(path);
  ASSERT_EQ(manifest.assets.size(), 3U);
  for (const FileRecord& asset : manifest.assets) {
    EXPECT_EQ(read_bytes(asset_path(manifest, path, asset.name)), "content of " + asset.name);
  }
  EXPECT_EQ(asset_path(manifest, path, "notes.txt"), "");
  EXPECT_EQ(decode_manifest(encode(manifest), "again"), manifest);
  EXPECT_TRUE(verify_checkpoint(path).damage.empty());
}

TEST_F(Assets, DamageIsNamed) {
  const std::string path = save();
  const std::string asset = path + "/assets/tokenizer.json";
  write_bytes(asset, "Content of tokenizer.json");
  const Verification found = verify_checkpoint(path);
  ASSERT_EQ(found.damage.size(), 1U);
  EXPECT_EQ(found.damage[0], asset + ": is damaged (checksum mismatch)");
  write_bytes(asset, "short");
  EXPECT_EQ(error_of([&] { read_committed(path); }),
            asset + ": has 5 bytes where the manifest says 25");
  fs::remove(asset);
  EXPECT_NE(error_of([&] { read_committed(path); }).find(asset), std::string::npos);
}

TEST_F(Assets, ACheckpointOfAnEarlierVersionHasNone) {
  Manifest manifest = read_committed(save());
  manifest.assets.clear();
  std::string text = encode(manifest);
  text.erase(text.find(" \"assets\": [],\n"), std::string(" \"assets\": [],\n").size());
  const size_t checksum = text.rfind("\"crc32c\": ");
  text = text.substr(0, checksum);
  text += absl::StrFormat("\"crc32c\": \"%08x\"\n}\n", crc32c(text.data(), text.size()));
  EXPECT_EQ(decode_manifest(text, "old"), manifest);
}

}  // namespace
}  // namespace caravan::test
