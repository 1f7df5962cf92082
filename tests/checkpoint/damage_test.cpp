// Random damage to the files of a checkpoint: all of it is reported, none of it is loaded.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "checkpoint/directory.h"
#include "runtime/rng.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

constexpr int kNumRanks = 2;

// CARAVAN_SOAK=1: minutes instead of a second.
bool is_soak() { return std::getenv("CARAVAN_SOAK") != nullptr; }

std::string load_error(const std::string& path) {
  std::string message;
  message = error_of([&] { loads_exactly(path, small_model(), 1, kNumRanks); });
  return message;
}

class Damage : public testing::Test {
 protected:
  Damage() : path_(save_model(folder_.path(), small_model(), 1, kNumRanks).path) {
    for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
      files_.push_back(entry.path().string());
    }
    std::sort(files_.begin(), files_.end());
  }

  // Damages file `path` by `change`, expects an error that names the file, and mends it.
  void expect_reported(const std::string& path,
                       const std::function<std::string(std::string)>& change) {
    const std::string good = read_bytes(path);
    write_bytes(path, change(good));
    const std::string message = load_error(path_);
    EXPECT_NE(message.find(fs::path(path).filename().string()), std::string::npos)
        << path << ": " << message;
    write_bytes(path, good);
  }

  TemporaryFolder folder_;
  std::string path_;
  std::vector<std::string> files_;
};

TEST_F(Damage, NoneIsFine) {
  ASSERT_EQ(files_.size(), 3u);
  EXPECT_TRUE(loads_exactly(path_, small_model(), 1, kNumRanks));
}

TEST_F(Damage, BitFlips) {
  const uint64_t num_seeds = is_soak() ? 3 : 1, num_changes = is_soak() ? 20000 : 600;
  for (uint64_t seed = 0; seed < num_seeds; ++seed) {
    const RandomStream random(5, RandomPurpose::test, seed);
    for (uint64_t i = 0; i < num_changes; ++i) {
      expect_reported(files_[i % files_.size()], [&](std::string bytes) {
        const size_t at = random.bits(2 * i) % bytes.size();
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.bits(2 * i + 1) % 8));
        return bytes;
      });
    }
  }
}

TEST_F(Damage, TruncationsAndAppendedBytes) {
  const RandomStream random(6, RandomPurpose::test, 0);
  for (uint64_t i = 0; i < 150; ++i) {
    expect_reported(files_[i % files_.size()], [&](const std::string& bytes) {
      return bytes.substr(0, random.bits(i) % bytes.size());
    });
  }
  for (const std::string& file : files_) {
    expect_reported(file, [](const std::string& bytes) { return bytes + '\0'; });
  }
}

TEST_F(Damage, SwappedRankFiles) {
  const std::string first = read_bytes(files_[1]), second = read_bytes(files_[2]);
  write_bytes(files_[1], second);
  write_bytes(files_[2], first);
  EXPECT_NE(load_error(path_), "");
}

TEST_F(Damage, MissingFilesLinksAndFolders) {
  for (const std::string& file : files_) {
    const std::string aside = folder_.path() + "/aside";
    fs::rename(file, aside);
    EXPECT_NE(load_error(path_).find("errno 2"), std::string::npos) << file;
    fs::create_symlink(aside, file);
    EXPECT_NE(load_error(path_), "") << "link";
    fs::remove(file);
    fs::create_directory(file);
    EXPECT_NE(load_error(path_), "") << "folder";
    fs::remove(file);
    ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
    EXPECT_NE(load_error(path_), "") << "FIFO";
    fs::remove(file);
    fs::rename(aside, file);
  }
  EXPECT_EQ(load_error(path_), "");
}

// Every tensor's damage is told apart: the message names the tensor.
TEST_F(Damage, MessageNamesTheTensor) {
  const Manifest manifest = read_committed(path_);
  for (const TensorRecord& tensor : manifest.tensors) {
    const ShardRecord& shard = tensor.shards.back();
    const std::string file = path_ + "/" + shard.file;
    const std::string good = read_bytes(file);
    std::string bad = good;
    bad[static_cast<size_t>(shard.offset_bytes)] ^= 1;
    write_bytes(file, bad);
    const std::string message = load_error(path_);
    EXPECT_NE(message.find("'" + tensor.name + "' is damaged"), std::string::npos) << message;
    write_bytes(file, good);
  }
}

}  // namespace
}  // namespace caravan::test
