// Links that are followed. Those that are refused are in safetensors_test.cpp, with the check that
// nothing behind them is read.
#include "data/folder_path.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "data/tokenizer.h"
#include "tests/data/support.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

TEST(FolderPath, FollowsLinksInsideAndInCaches) {
  const DataFolder folder;
  folder.write("below/there", "content");
  fs::create_symlink("below/there", folder / "link");
  EXPECT_EQ(resolve_inside(folder.path(), "link"), fs::canonical(folder / "below/there").string());

  const DataFolder cache;
  fs::create_directories(cache / "snapshots/1234");
  fs::create_directories(cache / "blobs/deep");
  fs::create_directories(cache / "other");
  const std::string snapshot = cache / "snapshots/1234";
  const auto resolved = [&](const std::string& target) {
    cache.write(target, "content");
    fs::remove(snapshot + "/file");
    fs::create_symlink("../../" + target, snapshot + "/file");
    return resolve_inside(snapshot, "file");
  };
  const std::string blob = resolved("blobs/abc");
  EXPECT_EQ(blob, fs::canonical(cache / "blobs/abc").string());
  fs::create_directory_symlink(snapshot, cache / "alias");
  EXPECT_EQ(resolve_inside(cache / "alias", "file"), blob);
  for (const char* target : {"other/abc", "abc", "blobs/deep/abc", "snapshots/abc"}) {
    expect_contains(message_of(ExitCode::checkpoint, [&] { resolved(target); }),
                    {"link to a file outside"});
  }
  EXPECT_FALSE(find_inside(snapshot, "absent").has_value());
  expect_contains(
      message_of(ExitCode::data, [&] { resolve_inside(snapshot, "absent", ExitCode::data); }),
      {"has no file 'absent'"});
  expect_contains(
      message_of(ExitCode::checkpoint, [&] { resolve_inside(cache / "nowhere", "file"); }),
      {"is not a folder"});
}

// A tokenizer's folder may be hostile, too.
TEST(FolderPath, TokenizersDoNotFollowLinksToOtherFolders) {
  const DataFolder outside;
  const std::string secret = outside.write("tokenizer.json", "{}");
  const DataFolder folder;
  fs::create_symlink(secret, folder / "tokenizer.json");
  expect_contains(message_of(ExitCode::data, [&] { open_tokenizer(folder.path()); }),
                  {"tokenizer.json: is a link to a file outside"});
}

}  // namespace
}  // namespace caravan
