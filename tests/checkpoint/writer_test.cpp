// The steps of a save: what is committed, replaced and left over.
#include "checkpoint/writer.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/directory.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

namespace fs = std::filesystem;

TEST(Writer, MissingShardIsRefusedBeforeTheCommit) {
  const TemporaryFolder folder;
  const std::vector<float> row(5, 1.0f);
  const SaveRequest request{.folder = folder.path(),
                            .header = header_of_step(3),
                            .shards = {{"w", DType::f32, {2, 5}, {0, 0}, {1, 5}, row.data()}}};
  const std::vector<std::string> reports = {write_rank(request, 0, 1)};
  const std::string error = error_of([&] { commit_save(request, reports); });
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

TEST(Writer, WhatAnotherAttemptLeftIsNoObstacle) {
  const TemporaryFolder folder;
  SaveRequest request{.folder = folder.path(), .header = header_of_step(4)};
  request.attempt = "killed";
  write_rank(request, 0, 1);
  const std::string left = folder.path() + "/" + temporary_folder_name(4, "run-1-killed");
  write_bytes(left + "/rank-00000-of-00001.h5", "half a file");
  const std::string path = save_model(folder.path(), small_model(), 4, 1).path;
  EXPECT_TRUE(loads_exactly(path, small_model(), 4, 2));
  EXPECT_TRUE(fs::exists(left));
  EXPECT_EQ(clean_temporaries(folder.path()), std::vector<std::string>{left});
}

}  // namespace
}  // namespace caravan::test
