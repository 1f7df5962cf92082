// verify_checkpoint: damage anywhere is named, all of it, and none of it is loaded. The random part
// changes files in place, on a memory file system where there is one.
#include "checkpoint/verify.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "checkpoint/directory.h"
#include "runtime/rng.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

constexpr int kRanks = 2;
constexpr uint64_t kRandomChanges = kDebugBuild ? 2'000 : 20'000;

// A file that is damaged in place and mended at the end of the scope.
class Patch {
 public:
  Patch(const std::string& path, const std::string& good, size_t at, const std::string& bytes)
      : path_(path), good_(good) {
    write(at, bytes);
  }
  Patch(const std::string& path, const std::string& good, size_t size) : path_(path), good_(good) {
    EXPECT_EQ(::truncate(path.c_str(), static_cast<off_t>(size)), 0);
    begin_ = size, end_ = good.size();
  }
  ~Patch() { write(begin_, good_.substr(begin_, end_ - begin_)); }
  Patch(const Patch&) = delete;
  Patch& operator=(const Patch&) = delete;

 private:
  void write(size_t at, const std::string& bytes) {
    begin_ = at, end_ = at + bytes.size();
    const int file = ::open(path_.c_str(), O_WRONLY);
    EXPECT_EQ(::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at)),
              static_cast<ssize_t>(bytes.size()));
    ::close(file);
  }
  const std::string& path_;
  const std::string& good_;
  size_t begin_ = 0, end_ = 0;
};

class Verify : public testing::Test {
 protected:
  struct File {
    std::string name, path, good;
  };
  struct Shard {
    size_t file;
    std::string tensor;
    size_t begin, end;
  };

  Verify() {
    checkpoint_ = save_model(folder_.path(), model_, 1, kRanks).path;
    const Manifest manifest = read_committed(checkpoint_);
    for (const FileRecord& file : manifest.files) files_.push_back({file.name, "", ""});
    files_.push_back({kManifestName, "", ""});
    for (File& file : files_) {
      file.path = checkpoint_ + "/" + file.name;
      file.good = read_bytes(file.path);
    }
    for (const TensorRecord& tensor : manifest.tensors) {
      for (const ShardRecord& shard : tensor.shards) {
        const auto begin = static_cast<size_t>(shard.offset_bytes);
        const int64_t bytes = num_elements(shard.box.extent) * size_bytes(tensor.dtype);
        shards_.push_back({shard.file == files_[0].name ? 0u : 1u, tensor.name, begin,
                           begin + static_cast<size_t>(bytes)});
      }
    }
  }

  // Names of the tensors that bytes [begin, end) of a file belong to.
  std::vector<std::string> tensors_in(size_t file, size_t begin, size_t end) const {
    std::vector<std::string> names;
    for (const Shard& shard : shards_) {
      if (shard.file == file && begin < shard.end && shard.begin < end) {
        names.push_back(shard.tensor);
      }
    }
    return names;
  }

  bool loads() const {
    try {
      return loads_exactly(checkpoint_, model_, 1, kRanks);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::checkpoint) << error.what();
      return false;
    }
  }

  // The damage of bytes [begin, end) of the file is reported: the file, and each tensor in it, and
  // no tensor that is whole.
  void expect_named(size_t file, size_t begin, size_t end) const {
    const std::vector<std::string> damage = verify_checkpoint(checkpoint_).damage;
    const std::vector<std::string> tensors = tensors_in(file, begin, end);
    EXPECT_FALSE(damage.empty()) << files_[file].name << " at " << begin;
    size_t named = 0;
    for (const std::string& line : damage) {
      EXPECT_EQ(line.find(files_[file].path), 0u) << line;
      EXPECT_EQ(line.find('\n'), std::string::npos) << line;
      for (const std::string& tensor : tensors) {
        if (line.find("tensor '" + tensor + "'") != std::string::npos) ++named;
      }
      EXPECT_TRUE(!tensors.empty() || line.find("tensor '") == std::string::npos) << line;
    }
    EXPECT_EQ(named, tensors.size())
        << files_[file].name << " at " << begin << ": " << (damage.empty() ? "" : damage.front());
    EXPECT_FALSE(loads()) << files_[file].name << " at " << begin;
  }

  void expect_byte_is_guarded(size_t file, size_t at) const {
    const File& entry = files_[file];
    const std::string changed(1, static_cast<char>(entry.good[at] ^ 0x10));
    const Patch patch(entry.path, entry.good, at, changed);
    expect_named(file, at, at + 1);
  }

  // A few elements of each dtype: quick to read, 20,000 times.
  const std::vector<TestTensor> model_ = {{"w", DType::f32, {6, 5}, 0},
                                          {"group/x", DType::bf16, {4, 7}, 1},
                                          {"positions", DType::i32, {3}, -1}};
  TemporaryFolder folder_{"/dev/shm"};
  std::string checkpoint_;
  std::vector<File> files_;  // of the ranks, then the manifest
  std::vector<Shard> shards_;
};

TEST_F(Verify, AGoodOneIsReadWhole) {
  const Verification result = verify_checkpoint(checkpoint_);
  EXPECT_TRUE(result.ok()) << result.damage.front();
  EXPECT_EQ(result.num_tensors, 3);
  size_t bytes = 0;
  for (const File& file : files_) bytes += file.good.size();
  EXPECT_EQ(result.size_bytes, static_cast<int64_t>(bytes));
  EXPECT_TRUE(loads());
}

// The first and last byte of every shard and of every gap, and of every file.
TEST_F(Verify, FindsDamageInEveryRegion) {
  for (size_t file = 0; file < files_.size(); ++file) {
    std::vector<size_t> places = {0, files_[file].good.size() - 1};
    for (const Shard& shard : shards_) {
      if (shard.file != file) continue;
      places.insert(places.end(), {shard.begin - 1, shard.begin, shard.end - 1, shard.end});
    }
    for (const size_t at : places) {
      if (at < files_[file].good.size()) expect_byte_is_guarded(file, at);
    }
  }
  EXPECT_TRUE(loads()) << "not mended";
}

TEST_F(Verify, NamesAllDamageAtOnce) {
  std::vector<std::unique_ptr<Patch>> patches;
  for (const Shard& shard : shards_) {
    const File& file = files_[shard.file];
    const std::string changed(1, static_cast<char>(file.good[shard.begin] ^ 1));
    patches.push_back(std::make_unique<Patch>(file.path, file.good, shard.begin, changed));
  }
  const std::string frame(1, static_cast<char>(files_[1].good[20] ^ 1));
  patches.push_back(std::make_unique<Patch>(files_[1].path, files_[1].good, 20, frame));
  const Verification result = verify_checkpoint(checkpoint_);
  EXPECT_EQ(result.damage.size(), shards_.size() + 1);
  EXPECT_TRUE(std::any_of(result.damage.begin(), result.damage.end(), [&](const auto& line) {
    return line == files_[1].path + ": damaged outside of its tensors (checksum mismatch)";
  }));
}

TEST_F(Verify, NamesMissingFilesAndTheirTensors) {
  fs::remove(files_[1].path);
  const std::vector<std::string> damage = verify_checkpoint(checkpoint_).damage;
  ASSERT_EQ(damage.size(), 1 + tensors_in(1, 0, SIZE_MAX).size());
  EXPECT_NE(damage[0].find("rank-00001-of-00002.h5: cannot open"), std::string::npos) << damage[0];
  EXPECT_NE(damage[1].find("is lost with its file"), std::string::npos) << damage[1];
}

TEST_F(Verify, AFolderOfAnotherStepIsDamage) {
  const std::string renamed = folder_.path() + "/step-00000002";
  fs::rename(checkpoint_, renamed);
  const std::vector<std::string> damage = verify_checkpoint(renamed).damage;
  ASSERT_EQ(damage.size(), 1u);
  EXPECT_EQ(damage[0], renamed + "/manifest.json: is that of step 1, the folder that of step 2");
}

// Changes of one byte, of up to 64 bytes, and truncations, spread over all files.
TEST_F(Verify, RandomChanges) {
  const RandomStream random(11, RandomPurpose::test, 0);
  uint64_t draw = 0;
  const auto below = [&](size_t bound) { return random.bits(draw++) % bound; };
  for (uint64_t i = 0; i < kRandomChanges && !HasFailure(); ++i) {
    const size_t file = i % files_.size();
    const File& entry = files_[file];
    // Half of the changes hit a tensor: the structures around them are most of such small files.
    const std::vector<const Shard*> shards = [&] {
      std::vector<const Shard*> found;
      for (const Shard& shard : shards_) {
        if (shard.file == file) found.push_back(&shard);
      }
      return found;
    }();
    size_t at = below(entry.good.size());
    if (!shards.empty() && below(2) == 0) {
      const Shard& shard = *shards[below(shards.size())];
      at = shard.begin + below(shard.end - shard.begin);
    }
    if (i % 10 == 9) {
      const Patch patch(entry.path, entry.good, at);
      expect_named(file, at, entry.good.size());
      continue;
    }
    const size_t length = i % 10 == 8 ? std::min(1 + below(64), entry.good.size() - at) : 1;
    std::string bytes = entry.good.substr(at, length);
    for (char& byte : bytes) byte = static_cast<char>(byte ^ (1 + below(255)));
    const Patch patch(entry.path, entry.good, at, bytes);
    expect_named(file, at, at + length);
  }
  EXPECT_TRUE(loads()) << "not mended";
}

}  // namespace
}  // namespace caravan::test
