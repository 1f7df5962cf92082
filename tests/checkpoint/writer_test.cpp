// The commit protocol among several ranks, and what is left when one of them fails.
#include "checkpoint/writer.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "checkpoint/directory.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

// Ranks as threads. HDF5 admits one thread at a time, so a rank leaves its first broadcast only
// when the rank before it has come to the gather.
class Threads {
 public:
  explicit Threads(int num_ranks) : num_ranks_(num_ranks), texts_(static_cast<size_t>(num_ranks)) {}

  RankGroup group(int rank) {
    return {.rank = rank,
            .num_ranks = num_ranks_,
            .gather = [this, rank](const std::string& text) { return gather(rank, text); },
            .broadcast = [this, rank](const std::string& text) { return broadcast(rank, text); }};
  }

 private:
  std::vector<std::string> gather(int rank, const std::string& text) {
    std::unique_lock lock(mutex_);
    texts_[static_cast<size_t>(rank)] = text;
    ++num_gathered_;
    changed_.notify_all();
    if (rank == 0) changed_.wait(lock, [&] { return num_gathered_ == num_ranks_; });
    return texts_;
  }

  std::string broadcast(int rank, const std::string& text) {
    std::unique_lock lock(mutex_);
    const bool first = num_gathered_ <= rank;
    std::optional<std::string>& slot = first ? begun_ : finished_;
    if (rank == 0) slot = text;
    changed_.notify_all();
    changed_.wait(lock, [&] {
      const bool failed = begun_ && !begun_->empty();
      return slot && (!first || failed || num_gathered_ >= rank);
    });
    return *slot;
  }

  int num_ranks_;
  std::vector<std::string> texts_;
  std::optional<std::string> begun_, finished_;
  int num_gathered_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
};

// Each rank saves one row of tensor "w"; returns each rank's error.
std::vector<std::string> save_rows(const std::string& folder, int num_ranks, int bad_rank) {
  Threads threads(num_ranks);
  std::vector<std::string> errors(static_cast<size_t>(num_ranks));
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ranks.emplace_back([&, rank] {
      const std::vector<float> row(5, static_cast<float>(rank));
      SaveRequest request{folder, header_of_step(3), {}, 0};
      // "w" twice in one file is what makes the bad rank fail while it writes.
      for (int copies = rank == bad_rank ? 2 : 1; copies > 0; --copies) {
        request.shards.push_back({"w", DType::f32, {num_ranks, 5}, {rank, 0}, {1, 5}, row.data()});
      }
      errors[static_cast<size_t>(rank)] =
          error_of([&] { save_checkpoint(request, threads.group(rank)); });
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return errors;
}

TEST(Writer, RanksSaveTogether) {
  const TemporaryFolder folder;
  for (const std::string& error : save_rows(folder.path(), 4, -1)) EXPECT_EQ(error, "");
  CheckpointReader reader(find_latest(folder.path()).path);
  std::vector<float> column(4);
  reader.read({"w", DType::f32, {4, 5}, {0, 4}, {4, 1}, column.data()});
  EXPECT_EQ(column, (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(reader.manifest().files.size(), 4u);
}

TEST(Writer, FailureOfOneRankIsToldToAll) {
  const TemporaryFolder folder;
  save_model(folder.path(), small_model(), 2, 2);
  for (const std::string& error : save_rows(folder.path(), 4, 2)) {
    EXPECT_NE(error.find("rank 2: "), std::string::npos) << error;
    EXPECT_NE(error.find("rank-00002-of-00004.h5"), std::string::npos) << error;
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
  EXPECT_TRUE(loads_exactly(find_latest(folder.path()).path, small_model(), 2, 1));
}

TEST(Writer, UnusableFolderIsToldToAll) {
  const TemporaryFolder folder;
  write_bytes(folder.path() + "/file", "x");
  for (const std::string& error : save_rows(folder.path() + "/file/checkpoints", 3, -1)) {
    EXPECT_EQ(error, folder.path() + "/file: cannot make the folder: File exists (errno 17)");
  }
}

TEST(Writer, MissingShardIsRefusedBeforeTheCommit) {
  const TemporaryFolder folder;
  const std::vector<float> row(5, 1.0f);
  const SaveRequest request{
      folder.path(), header_of_step(3), {{"w", DType::f32, {2, 5}, {0, 0}, {1, 5}, row.data()}}, 0};
  const std::string error = error_of([&] { save_checkpoint(request, single_rank()); });
  EXPECT_NE(error.find("5 of 10 elements are in no shard"), std::string::npos) << error;
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Writer, SameStepReplacesTheOldOne) {
  const TemporaryFolder folder;
  save_model(folder.path(), small_model(), 5, 3);
  const std::vector<TestTensor> other = {{"other", DType::i32, {3}, 0}};
  const std::string path = save_model(folder.path(), other, 5, 1).path;
  EXPECT_TRUE(loads_exactly(path, other, 5, 2));
  EXPECT_FALSE(CheckpointReader(path).has_tensor("norm"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

TEST(Writer, LeftoverOfTheSameStepIsNoObstacle) {
  const TemporaryFolder folder;
  const SaveRequest request{folder.path(), header_of_step(4), {}, 0};
  write_bytes(begin_save(request) + "/rank-00000-of-00001.h5", "half a file");
  const std::string path = save_model(folder.path(), small_model(), 4, 1).path;
  EXPECT_TRUE(loads_exactly(path, small_model(), 4, 2));
}

}  // namespace
}  // namespace caravan::test
