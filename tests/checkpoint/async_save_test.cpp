// Saving beside training, on virtual ranks that share one writer thread (HDF5 admits one).
#include "checkpoint/async_save.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/directory.h"
#include "tests/checkpoint/support.h"
#include "tests/support/virtual_ranks.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kColumns = 3000;

// A rank that trains: row `rank` of tensor "w" holds the number of the step.
class Rank {
 public:
  Rank(Communicator& world, WriterThread& writer, const std::string& folder, size_t copy_bytes)
      : world_(world), folder_(folder), copy_(copy_bytes), save_(world, writer, copy_) {}

  void begin(int64_t step, int copies = 1) {
    SaveRequest request{.folder = folder_, .header = header_of_step(step)};
    for (int i = 0; i < copies; ++i) {
      request.shards.push_back({"w",
                                DType::f32,
                                {world_.size(), kColumns},
                                {world_.rank(), 0},
                                {1, kColumns},
                                row_.data()});
    }
    save_.begin(std::move(request));
  }

  // One step: the exchange, then the change of the weights.
  std::optional<SaveResult> step(int64_t number) {
    std::vector<SaveStage> stages(static_cast<size_t>(world_.size()));
    const SaveStage mine = save_.stage();
    world_.all_gather(&mine, stages.data(), sizeof(mine));
    std::optional<SaveResult> result = save_.advance(stages);
    save_.detach();
    std::fill(row_.begin(), row_.end(), static_cast<float>(number));
    return result;
  }

  AsyncSave& save() { return save_; }

 private:
  Communicator& world_;
  std::string folder_;
  std::vector<std::byte> copy_;
  std::vector<float> row_ = std::vector<float>(kColumns);
  AsyncSave save_;
};

void expect_holds(const std::string& path, int num_ranks, float value) {
  std::vector<float> all(static_cast<size_t>(num_ranks * kColumns));
  CheckpointReader reader(path);
  reader.read({"w", DType::f32, {num_ranks, kColumns}, {0, 0}, {num_ranks, kColumns}, all.data()});
  EXPECT_EQ(all, std::vector<float>(all.size(), value)) << path;
}

// Weights change at every step while files are written; each checkpoint holds those of its step.
TEST(AsyncSave, HoldsTheStepAtWhichItBegan) {
  for (const size_t copy_bytes : {size_t{0}, size_t{5000}, size_t{4 * kColumns}}) {
    const TemporaryFolder folder;
    WriterThread writer;
    std::vector<std::string> saved;
    run_ranks(3, [&](Communicator& world) {
      Rank rank(world, writer, folder.path(), copy_bytes);
      int64_t num_saved = 0;
      for (int64_t step = 1; num_saved < 4; ++step) {
        const std::optional<SaveResult> result = rank.step(step);
        if (result) ++num_saved;
        if (result && world.rank() == 0) saved.push_back(result->saved.path);
        if (!rank.save().in_flight()) rank.begin(step);
      }
      const SaveResult last = rank.save().finish();
      EXPECT_EQ(last.error, "");
      if (world.rank() == 0) saved.push_back(last.saved.path);
    });
    ASSERT_EQ(saved.size(), 5u);
    for (const std::string& path : saved) {
      expect_holds(path, 3, static_cast<float>(read_committed(path).header.step));
    }
  }
}

TEST(AsyncSave, FailureOfOneRankIsToldToAll) {
  const TemporaryFolder folder;
  WriterThread writer;
  run_ranks(4, [&](Communicator& world) {
    Rank rank(world, writer, folder.path(), 0);
    rank.begin(1);
    EXPECT_EQ(rank.save().finish().error, "");
    rank.step(2);
    rank.begin(2, world.rank() == 2 ? 2 : 1);  // "w" twice in one file is an error
    const SaveResult result = rank.save().finish();
    EXPECT_NE(result.error.find("rank 2: "), std::string::npos) << result.error;
    EXPECT_NE(result.error.find("rank-00002-of-00004.h5"), std::string::npos) << result.error;
    rank.step(3);
    rank.begin(3);  // and the next one is as good as ever
    EXPECT_EQ(rank.save().finish().error, "");
  });
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);
  expect_holds(find_latest(folder.path()).path, 4, 3);
}

TEST(AsyncSave, UnusableFolderIsToldToAll) {
  const TemporaryFolder folder;
  write_bytes(folder.path() + "/file", "x");
  WriterThread writer;
  run_ranks(3, [&](Communicator& world) {
    Rank rank(world, writer, folder.path() + "/file/checkpoints", 0);
    rank.begin(1);
    EXPECT_EQ(rank.save().finish().error, "rank 0: " + folder.path() +
                                              "/file: cannot make the folder: File exists (errno "
                                              "17)");
  });
}

TEST(AsyncSave, GivenUpLeavesOlderOnesAlone) {
  const TemporaryFolder folder;
  const std::string path = save_model(folder.path(), small_model(), 1, 1).path;
  WriterThread writer;
  run_ranks(2, [&](Communicator& world) {
    Rank rank(world, writer, folder.path(), 0);
    rank.begin(2);
  });
  EXPECT_EQ(find_latest(folder.path()).path, path);
  EXPECT_TRUE(loads_exactly(path, small_model(), 1, 2));
}

}  // namespace
}  // namespace caravan::test
