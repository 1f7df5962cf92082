// What a writer reads while the owner of the memory wants to change it.
#include "checkpoint/snapshot.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "tests/checkpoint/support.h"

namespace caravan::test {
namespace {

// Three tensors whose words count up, and a reader that walks over them in pieces.
class SnapshotTest : public testing::Test {
 protected:
  static constexpr int64_t kBytes = 4 * (1000 + 1 + 377);

  SnapshotTest() {
    int32_t next = 0;
    for (const int64_t size : {1000, 1, 377}) {
      memory_.emplace_back(size);
      std::iota(memory_.back().begin(), memory_.back().end(), next);
      next += static_cast<int32_t>(size);
    }
    for (const std::vector<int32_t>& tensor : memory_) {
      const Shape shape = {static_cast<int64_t>(tensor.size())};
      shards_.push_back({"t", DType::i32, shape, {0}, shape, tensor.data()});
    }
  }

  void change_memory() {
    for (std::vector<int32_t>& tensor : memory_) std::fill(tensor.begin(), tensor.end(), -1);
  }

  // Reads up to `end` bytes of all, in pieces of 12 bytes at most.
  void read_until(Snapshot& snapshot, int64_t end) {
    while (position_ < end) {
      int64_t begin = 0;
      size_t shard = 0;
      for (; begin + size_bytes(shards_[shard]) <= position_; ++shard) {
        begin += size_bytes(shards_[shard]);
      }
      const int64_t left = begin + size_bytes(shards_[shard]) - position_;
      std::vector<std::byte> piece(static_cast<size_t>(std::min<int64_t>(12, left)));
      snapshot.read(shard, position_ - begin, piece);
      read_.insert(read_.end(), piece.begin(), piece.end());
      position_ += static_cast<int64_t>(piece.size());
    }
  }

  void expect_all_as_it_was() {
    ASSERT_EQ(std::ssize(read_), kBytes);
    const auto* words = reinterpret_cast<const int32_t*>(read_.data());
    for (int32_t i = 0; i < kBytes / 4; ++i) ASSERT_EQ(words[i], i);
  }

  std::vector<std::vector<int32_t>> memory_;
  std::vector<TensorShard> shards_;
  std::vector<std::byte> read_;
  int64_t position_ = 0;
};

TEST_F(SnapshotTest, WhatIsLeftIsCopied) {
  for (const int64_t read_before :
       {int64_t{0}, int64_t{12}, int64_t{4000}, int64_t{4008}, kBytes}) {
    std::vector<std::byte> copy(static_cast<size_t>(kBytes - read_before));
    std::vector<std::vector<int32_t>> kept = memory_;
    position_ = 0, read_.clear();
    Snapshot snapshot(shards_, copy);
    EXPECT_EQ(snapshot.bytes(), kBytes);
    read_until(snapshot, read_before);
    snapshot.detach();
    change_memory();
    snapshot.detach();  // again: nothing more to do
    read_until(snapshot, kBytes);
    expect_all_as_it_was();
    for (size_t i = 0; i < kept.size(); ++i) {
      std::copy(kept[i].begin(), kept[i].end(), memory_[i].begin());
    }
  }
}

// Memory that only its owner can read: a device's.
TEST_F(SnapshotTest, LiveMemoryIsReadByTheFunctionThatIsGiven) {
  int64_t num_bytes = 0;
  const CopyOut count = [&](void* host, const void* live, int64_t bytes) {
    num_bytes += bytes;
    copy_from_host_memory(host, live, bytes);
  };
  std::vector<std::byte> copy(static_cast<size_t>(kBytes));
  Snapshot snapshot(shards_, copy, count);
  read_until(snapshot, 1200);
  EXPECT_EQ(num_bytes, 1200);
  snapshot.detach();
  EXPECT_EQ(num_bytes, kBytes);
  change_memory();
  read_until(snapshot, kBytes);
  expect_all_as_it_was();
  EXPECT_EQ(num_bytes, kBytes);  // each byte once
}

// Whatever room there is, the owner waits just long enough.
TEST_F(SnapshotTest, WaitsWhereTheCopyIsTooSmall) {
  for (const size_t room : {size_t{0}, size_t{100}, size_t{3000}}) {
    const std::vector<std::vector<int32_t>> kept = memory_;
    std::vector<std::byte> copy(room);
    position_ = 0, read_.clear();
    Snapshot snapshot(shards_, copy);
    std::thread writer([&] { read_until(snapshot, kBytes); });
    snapshot.detach();
    change_memory();
    writer.join();
    expect_all_as_it_was();
    for (size_t i = 0; i < kept.size(); ++i) {
      std::copy(kept[i].begin(), kept[i].end(), memory_[i].begin());
    }
  }
}

TEST_F(SnapshotTest, AWriterThatEndsEarlyHoldsNobodyUp) {
  Snapshot snapshot(shards_, {});
  std::thread writer([&] { snapshot.close(); });
  snapshot.detach();
  writer.join();
}

TEST_F(SnapshotTest, CancelledIsAnError) {
  Snapshot snapshot(shards_, {});
  snapshot.cancel();
  EXPECT_NE(error_of([&] { read_until(snapshot, 12); }).find("given up"), std::string::npos);
}

}  // namespace
}  // namespace caravan::test
