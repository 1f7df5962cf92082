// What W ranks wrote, any other number of ranks reads back bit for bit.
#include <gtest/gtest.h>

#include "checkpoint/directory.h"
#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

TEST(Layout, EveryLayoutLoadsEveryOther) {
  const TemporaryFolder folder;
  for (const int writers : {1, 2, 3, 4, 7}) {
    const SavedCheckpoint saved = save_model(folder.path(), small_model(), writers, writers);
    for (const int readers : {1, 2, 3, 5, 8}) {
      EXPECT_TRUE(loads_exactly(saved.path, small_model(), writers, readers))
          << writers << " ranks wrote, " << readers << " read";
    }
  }
}

// The same tensor split along dim 0 by the writers and along dim 1 by the readers.
TEST(Layout, SplitAlongAnotherDim) {
  const TemporaryFolder folder;
  const std::vector<TestTensor> rows = {{"w", DType::bf16, {29, 31}, 0}};
  const std::vector<TestTensor> columns = {{"w", DType::bf16, {29, 31}, 1}};
  const std::string by_rows = save_model(folder.path(), rows, 1, 4).path;
  const std::string by_columns = save_model(folder.path(), columns, 2, 3).path;
  for (const int readers : {1, 2, 5}) {
    EXPECT_TRUE(loads_exactly(by_rows, columns, 1, readers));
    EXPECT_TRUE(loads_exactly(by_columns, rows, 2, readers));
  }
}

// Larger than the reader's buffer; read twice, as the second time takes another way.
TEST(Layout, LargeTensorInPieces) {
  const TemporaryFolder folder;
  const TestTensor spec{"w", DType::f32, {1500, 700}, 0};
  const std::string path = save_model(folder.path(), {spec}, 9, 2).path;
  CheckpointReader reader(path);
  for (const Box& box : {Box{{700, 3}, {650, 690}}, Box{{1, 0}, {1498, 700}},
                         Box{{749, 699}, {2, 1}}, Box{{0, 0}, {1500, 700}}}) {
    const std::vector<char> expected = box_bytes(spec, box, 9);
    std::vector<char> found(expected.size());
    reader.read({"w", DType::f32, spec.shape, box.offset, box.extent, found.data()});
    EXPECT_TRUE(found == expected) << to_string(box);
  }
}

// Blocks at the two ends of a range are all that is read beyond it.
TEST(Layout, RanksReadOnlyTheirRanges) {
  const TemporaryFolder folder;
  const TestTensor spec{"w", DType::f32, {16'000, 256}, 0};  // 16 blocks
  const std::string path = save_model(folder.path(), {spec}, 9, 2).path;
  for (const int num_ranks : {1, 4, 7}) {
    for (int rank = 0; rank < num_ranks; ++rank) {
      const Box box = rank_box(spec, rank, num_ranks);
      std::vector<char> found(static_cast<size_t>(4 * num_elements(box.extent)));
      CheckpointReader reader(path);
      reader.read({"w", DType::f32, spec.shape, box.offset, box.extent, found.data()});
      EXPECT_EQ(found, box_bytes(spec, box, 9));
      EXPECT_GE(reader.bytes_read(), std::ssize(found));
      EXPECT_LE(reader.bytes_read(), std::ssize(found) + 3 * kBlockBytes) << num_ranks;
    }
  }
}

// Damage in a block that nobody asks for is nobody's concern; in any other it is.
TEST(Layout, EachBlockHasItsChecksum) {
  const TemporaryFolder folder;
  const TestTensor spec{"w", DType::f32, {1000, 1024}, 0};  // 4 blocks
  const std::string path = save_model(folder.path(), {spec}, 9, 1).path;
  const ShardRecord shard = read_committed(path).tensors[0].shards[0];
  ASSERT_EQ(shard.crc32c.size(), 4u);
  std::string bytes = read_bytes(path + "/" + shard.file);
  bytes[static_cast<size_t>(shard.offset_bytes + 2 * kBlockBytes)] ^= 1;
  write_bytes(path + "/" + shard.file, bytes);
  std::vector<float> row(1024);
  CheckpointReader reader(path);
  for (int64_t i = 0; i < 1000; ++i) {
    const std::string error = error_of([&] {
      reader.read({"w", DType::f32, spec.shape, {i, 0}, {1, 1024}, row.data()});
    });
    EXPECT_EQ(error.empty(), i < 512 || i >= 768) << i;
  }
}

TEST(Layout, HeaderComesBack) {
  const TemporaryFolder folder;
  const SavedCheckpoint saved = save_model(folder.path(), small_model(), 12, 2);
  const Manifest manifest = read_committed(saved.path);
  EXPECT_EQ(manifest.header, header_of_step(12));
  EXPECT_EQ(manifest.files.size(), 2u);
  EXPECT_EQ(total_bytes(manifest), saved.size_bytes);
}

TEST(Layout, WrongRequestsAreNamed) {
  const TemporaryFolder folder;
  const std::string path = save_model(folder.path(), small_model(), 1, 2).path;
  CheckpointReader reader(path);
  char data[4096];
  const std::string missing = error_of([&] {
    reader.read({"norm2", DType::f32, {12}, {0}, {12}, data});
  });
  EXPECT_NE(missing.find("no tensor 'norm2'"), std::string::npos) << missing;
  EXPECT_NE(missing.find(path), std::string::npos) << missing;
  const std::string dtype = error_of([&] {
    reader.read({"norm", DType::bf16, {12}, {0}, {12}, data});
  });
  EXPECT_NE(dtype.find("'norm' was saved as f32[12], but this run needs bf16[12]"),
            std::string::npos)
      << dtype;
  const std::string shape = error_of([&] {
    reader.read({"norm", DType::f32, {13}, {0}, {13}, data});
  });
  EXPECT_NE(shape.find("f32[13]"), std::string::npos) << shape;
  EXPECT_NE(error_of([&] { CheckpointReader(folder.path() + "/step-00000099"); }).find("step-0"),
            std::string::npos);
}

}  // namespace
}  // namespace caravan::test
