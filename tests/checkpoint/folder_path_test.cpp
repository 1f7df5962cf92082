// Links that are followed. Those that are refused are in safetensors_test.cpp, with the check that
// nothing behind them is read.
#include "checkpoint/folder_path.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/checkpoint/safetensors_support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

TEST(FolderPath, FollowsLinksInsideAndInCaches) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "below");
  write_bytes(folder / "below/there", "content");
  fs::create_symlink("below/there", folder / "link");
  EXPECT_EQ(resolve_inside(folder.path(), "link"), fs::canonical(folder / "below/there").string());

  const TemporaryFolder cache;
  fs::create_directories(cache / "snapshots/1234");
  fs::create_directories(cache / "blobs/deep");
  fs::create_directories(cache / "other");
  const std::string snapshot = cache / "snapshots/1234";
  const auto resolved = [&](const std::string& target) {
    write_bytes(cache / target, "content");
    fs::remove(snapshot + "/file");
    fs::create_symlink("../../" + target, snapshot + "/file");
    return resolve_inside(snapshot, "file");
  };
  const std::string blob = resolved("blobs/abc");
  EXPECT_EQ(blob, fs::canonical(cache / "blobs/abc").string());
  fs::create_directory_symlink(snapshot, cache / "alias");
  EXPECT_EQ(resolve_inside(cache / "alias", "file"), blob);
  for (const char* target : {"other/abc", "abc", "blobs/deep/abc", "snapshots/abc"}) {
    expect_part(error_of([&] { resolved(target); }), "link to a file outside");
  }
  EXPECT_FALSE(find_inside(snapshot, "absent").has_value());
  expect_part(error_of([&] { resolve_inside(snapshot, "absent", ExitCode::data); }, ExitCode::data),
              "has no file 'absent'");
  expect_part(error_of([&] { resolve_inside(cache / "nowhere", "file"); }), "is not a folder");
}

}  // namespace
}  // namespace caravan::test
