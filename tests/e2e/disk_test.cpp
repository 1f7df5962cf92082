// Disks that fill up, turn read-only or lose a folder while training saves to them. The small disk
// is a tmpfs: without the right to mount one, these tests are skipped.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "checkpoint/directory.h"
#include "tests/e2e/caravan_process.h"
#include "tests/e2e/processes.h"
#include "tests/support/text.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr char kGoOn[] = "checkpoint.on_save_error=continue ";

// Runs for long: what happens to the disk happens on the way.
constexpr char kLongRun[] = "train.max_steps=100000 checkpoint.save_steps=50 log.logging_steps=50 ";

class Disk : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(disk());
    if (mount("tmpfs", disk().c_str(), "tmpfs", 0, "size=16m") != 0) {
      GTEST_SKIP() << "cannot mount a tmpfs here: " << std::strerror(errno);
    }
    is_mounted_ = true;
  }
  void TearDown() override {
    if (is_mounted_) umount2(disk().c_str(), MNT_DETACH);
  }

  std::string disk() const { return bench_.path("disk"); }
  std::string run() const { return disk() + "/run"; }

  // Trains into the disk; `happen` is called once a checkpoint is there, then `until` is waited
  // for, and the run is asked to stop with USR1 (unless it has ended by itself).
  ProcessResult train(const std::string& options, const std::function<void()>& happen,
                      const std::function<bool()>& until) {
    ProcessResult result;
    std::atomic<bool> has_ended = false;
    std::thread trainer([&] {
      result = bench_.train("disk/run", kLongRun + options);
      has_ended = true;
    });
    const auto wait = [&](const std::function<bool()>& condition) {
      wait_for(condition, 120, [&] { return has_ended.load(); });
    };
    wait([&] { return find_latest(checkpoints_).step > 0; });
    happen();
    wait(until);
    const std::vector<pid_t> found = find_processes([&](const CommandLine& line) {
      return has_word(line, "output_dir=" + run()) && is_program(line, "caravan");
    });
    EXPECT_TRUE(has_ended || !found.empty()) << "nobody to stop";
    send_signal(found, SIGUSR1);
    trainer.join();
    return result;
  }

  void fill() const {
    std::ofstream file(disk() + "/ballast");
    const std::string block(4096, 'x');
    while (file.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }

  int64_t newest() const { return find_latest(checkpoints_).step; }

  Workbench bench_;
  std::string checkpoints_ = run() + "/checkpoints";
  bool is_mounted_ = false;
};

TEST_F(Disk, RoomIsCheckedBeforeStepOne) {
  const ProcessResult result =
      bench_.train("disk/run",
                   "checkpoint.save_steps=1 checkpoint.save_total_limit=99 "
                   "train.max_steps=100");
  EXPECT_EQ(result.exit_code, 4);
  EXPECT_TRUE(contains(result.output, "100 more checkpoints of")) << result.output;
  EXPECT_TRUE(contains(result.output, "lower checkpoint.save_total_limit")) << result.output;
  EXPECT_FALSE(contains(result.output, "step 1/")) << result.output;
}

TEST_F(Disk, FullStopsWithOneLine) {
  int64_t before = 0;
  const ProcessResult result = train(
      "", [&] { fill(), before = newest(); }, [] { return false; });
  EXPECT_EQ(result.exit_code, 4) << result.output;
  EXPECT_EQ(count(result.output, "caravan: error:"), 1u) << result.output;
  EXPECT_TRUE(contains(result.output, "No space left on device")) << result.output;
  EXPECT_TRUE(contains(result.output, "the newest checkpoint is " + checkpoints_)) << result.output;
  EXPECT_GE(newest(), before);
}

TEST_F(Disk, FullGoesOnAndSavesAgainWhenThereIsRoom) {
  int64_t before = 0;
  const ProcessResult result = train(
      kGoOn,
      [&] {
        fill();
        before = newest();
        std::this_thread::sleep_for(std::chrono::seconds(2));  // some saves fail meanwhile
        fs::remove(disk() + "/ballast");
      },
      [&] { return newest() > before + 1000; });
  EXPECT_EQ(result.exit_code, 75) << result.output;
  EXPECT_TRUE(contains(result.output, "could not be saved")) << result.output;
  EXPECT_TRUE(contains(result.output, "No space left on device")) << result.output;
}

TEST_F(Disk, ReadOnlyKeepsTheOlderOnes) {
  int64_t before = 0;
  const ProcessResult result = train(
      "",
      [&] {
        before = newest();
        const char* folder = checkpoints_.c_str();
        ASSERT_EQ(mount(folder, folder, "", MS_BIND, ""), 0) << std::strerror(errno);
        ASSERT_EQ(mount("", folder, "", MS_REMOUNT | MS_RDONLY | MS_BIND, ""), 0)
            << std::strerror(errno);
      },
      [] { return false; });
  EXPECT_EQ(result.exit_code, 4) << result.output;
  EXPECT_EQ(count(result.output, "caravan: error:"), 1u) << result.output;
  EXPECT_TRUE(contains(result.output, "Read-only file system")) << result.output;
  EXPECT_GT(before, 0);
  EXPECT_GE(newest(), before);
}

// Somebody removes the folder: the next save makes it again.
TEST_F(Disk, VanishedFolderIsMadeAgain) {
  int64_t before = 0;
  const ProcessResult result = train(
      kGoOn,
      [&] {
        before = newest();
        fs::rename(run(), disk() + "/aside");
      },
      [&] { return newest() > before; });
  EXPECT_EQ(result.exit_code, 75) << result.output;
}

// A file stands where the folder was: nothing can be saved, and the last save says so.
TEST_F(Disk, FolderThatCannotBeMadeEndsTheRun) {
  const ProcessResult result = train(
      "",
      [&] {
        fs::rename(checkpoints_, disk() + "/aside");
        std::ofstream(checkpoints_) << "x";
      },
      [] { return false; });
  EXPECT_EQ(result.exit_code, 4) << result.output;
  EXPECT_EQ(count(result.output, "caravan: error:"), 1u) << result.output;
  EXPECT_GT(find_latest(disk() + "/aside").step, 0);
}

}  // namespace
}  // namespace caravan
