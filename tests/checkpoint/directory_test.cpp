#include "checkpoint/directory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "runtime/rng.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

// Tensors do not matter here: a checkpoint is a folder with a manifest.
const std::vector<TestTensor> kNoTensors;

std::set<int64_t> steps_in(const std::string& folder) {
  std::set<int64_t> steps;
  for (const StepFolder& entry : list_step_folders(folder)) steps.insert(entry.step);
  return steps;
}

TEST(Directory, Names) {
  EXPECT_EQ(step_folder_name(1000), "step-00001000");
  EXPECT_EQ(step_folder_name(1234567890), "step-1234567890");
  EXPECT_EQ(parse_step_folder("step-00001000"), 1000);
  EXPECT_EQ(parse_step_folder("step-1234567890"), 1234567890);
  for (const char* name :
       {"step-1000", "step-", "step-0000100x", ".tmp-step-00001000-r", "step-0000001000",
        "step-00001000.bak", "step--0001000", "step-99999999999999999999"}) {
    EXPECT_EQ(parse_step_folder(name), std::nullopt) << name;
  }
  EXPECT_EQ(temporary_folder_name(7, "r-1"), ".tmp-step-00000007-r-1");
  EXPECT_EQ(rank_file_name(3, 8), "rank-00003-of-00008.h5");
}

TEST(Directory, NothingThere) {
  const TemporaryFolder folder;
  EXPECT_EQ(find_latest(folder.path()).path, "");
  EXPECT_EQ(find_latest(folder.path() + "/missing").path, "");
  EXPECT_TRUE(clean_temporaries(folder.path() + "/missing").empty());
}

TEST(Directory, NewestByNumberNotByName) {
  const TemporaryFolder folder;
  save_model(folder.path(), kNoTensors, 99999999, 1);
  save_model(folder.path(), kNoTensors, 100000000, 1);
  EXPECT_EQ(find_latest(folder.path()).step, 100000000);
}

TEST(Directory, UnusableFoldersAreIgnoredAndNamed) {
  const TemporaryFolder folder;
  save_model(folder.path(), small_model(), 10, 2);
  const std::string damaged = save_model(folder.path(), small_model(), 20, 2).path;
  const std::string shortened = save_model(folder.path(), small_model(), 30, 2).path;
  write_bytes(damaged + "/manifest.json", "{}");
  fs::resize_file(shortened + "/rank-00001-of-00002.h5", 100);
  fs::create_directory(folder.path() + "/step-00000040");
  fs::create_directory(folder.path() + "/.tmp-step-00000050-run-1");
  fs::copy(folder.path() + "/step-00000010", folder.path() + "/step-00000060");
  const LatestCheckpoint latest = find_latest(folder.path());
  EXPECT_EQ(latest.step, 10);
  ASSERT_EQ(latest.ignored.size(), 4u);
  for (const char* name : {"step-00000060", "step-00000040", "step-00000030", "step-00000020"}) {
    const bool named =
        std::any_of(latest.ignored.begin(), latest.ignored.end(),
                    [&](const std::string& line) { return line.find(name) != std::string::npos; });
    EXPECT_TRUE(named) << name;
  }
}

TEST(Directory, CleansOnlyTemporaries) {
  const TemporaryFolder folder;
  save_model(folder.path(), small_model(), 10, 2);
  fs::create_directories(folder.path() + "/.tmp-step-00000020-old/deeper");
  fs::create_directory(folder.path() + "/mine");
  fs::create_directory_symlink(folder.path() + "/mine", folder.path() + "/.tmp-step-link");
  EXPECT_EQ(clean_temporaries(folder.path()).size(), 1u);
  EXPECT_FALSE(fs::exists(folder.path() + "/.tmp-step-00000020-old"));
  EXPECT_TRUE(fs::exists(folder.path() + "/mine"));
  EXPECT_EQ(find_latest(folder.path()).step, 10);
}

TEST(Directory, LimitKeepsTheNewestOnes) {
  const TemporaryFolder folder;
  for (int64_t step = 8; step <= 12; ++step) save_model(folder.path(), kNoTensors, step, 1, 3);
  EXPECT_EQ(steps_in(folder.path()), (std::set<int64_t>{10, 11, 12}));
}

TEST(Directory, LimitKeepsWhatWasJustSaved) {
  const TemporaryFolder folder;
  for (const int64_t step : {500, 600}) save_model(folder.path(), kNoTensors, step, 1);
  save_model(folder.path(), kNoTensors, 100, 1, 1);  // a run that was set back to an older step
  EXPECT_EQ(steps_in(folder.path()), (std::set<int64_t>{100, 600}));
}

TEST(Directory, DamagedOnesNeitherCountNorGo) {
  const TemporaryFolder folder;
  save_model(folder.path(), kNoTensors, 1, 1);
  const std::string damaged = save_model(folder.path(), kNoTensors, 2, 1).path;
  write_bytes(damaged + "/manifest.json", "{}");
  save_model(folder.path(), kNoTensors, 3, 1, 2);
  EXPECT_EQ(steps_in(folder.path()), (std::set<int64_t>{1, 2, 3}));
  save_model(folder.path(), kNoTensors, 4, 1, 1);
  EXPECT_EQ(steps_in(folder.path()), (std::set<int64_t>{2, 4}));
}

// Random histories of saves with random steps and limits; in every second one the number of digits
// grows, so that names sort otherwise than numbers.
TEST(Directory, LimitProperty) {
  const TemporaryFolder root("/dev/shm");
  const RandomStream random(8, RandomPurpose::test, 0);
  uint64_t draw = 0;
  for (int history = 0; history < 25; ++history) {
    const std::string folder = root.path() + "/" + std::to_string(history);
    for (int save = 0; save < 12; ++save) {
      const int64_t first = history % 2 == 0 ? 0 : 99'999'985;
      const auto step = first + static_cast<int64_t>(random.bits(draw++) % 30);
      const auto limit = static_cast<int64_t>(random.bits(draw++) % 5);
      const std::set<int64_t> before = steps_in(folder);
      save_model(folder, kNoTensors, step, 1, limit);
      const std::set<int64_t> after = steps_in(folder);
      std::set<int64_t> all = before;
      all.insert(step);
      EXPECT_TRUE(after.count(step));
      EXPECT_EQ(*after.rbegin(), *all.rbegin()) << "the newest was deleted";
      if (limit == 0) {
        EXPECT_EQ(after, all);
        continue;
      }
      EXPECT_LE(after.size(), static_cast<size_t>(limit + 1));
      EXPECT_GE(after.size(), std::min(all.size(), static_cast<size_t>(limit)));
      for (const int64_t gone : all) {  // only the oldest go
        if (after.count(gone)) continue;
        const auto newer = std::distance(all.upper_bound(gone), all.end());
        EXPECT_GE(newer, limit);
      }
      EXPECT_EQ(find_latest(folder).step, *all.rbegin());
    }
  }
}

}  // namespace
}  // namespace caravan::test
