#include "data/prefetcher.h"

#include <atomic>
#include <chrono>
#include <future>
#include <set>

#include "support.h"

namespace caravan {
namespace {

void fill_with_index(int64_t index, Batch& batch) {
  batch.resize(2, 3);
  for (int32_t& id : batch.ids) id = static_cast<int32_t>(index);
}

TEST(Prefetcher, GivesBatchesInOrder) {
  for (const int depth : {1, 2, 5}) {
    Prefetcher prefetcher(fill_with_index, 7, depth);
    for (int32_t k = 7; k < 200; ++k) {
      const Batch& batch = prefetcher.next();
      ASSERT_EQ(batch.ids, std::vector<int32_t>(6, k));
    }
  }
}

TEST(Prefetcher, DoesNotTouchTheBatchInUse) {
  std::promise<void> ahead;
  Prefetcher prefetcher(
      [&](int64_t index, Batch& batch) {
        fill_with_index(index, batch);
        if (index == 3) ahead.set_value();  // as far ahead of batch 0 as the depth allows
      },
      0, 3);
  const Batch& batch = prefetcher.next();
  ahead.get_future().wait();
  EXPECT_EQ(batch.ids, std::vector<int32_t>(6, 0));
}

TEST(Prefetcher, RunsNoFurtherAheadThanItsDepth) {
  std::atomic<int64_t> filled{-1};
  Prefetcher prefetcher(
      [&](int64_t index, Batch& batch) {
        fill_with_index(index, batch);
        filled = index;
      },
      0, 2);
  for (int64_t k = 0; k < 100; ++k) {
    prefetcher.next();
    EXPECT_LE(filled.load(), k + 2);
  }
}

TEST(Prefetcher, RecyclesItsBuffers) {
  std::set<const int32_t*> buffers;  // written by the thread, read after it has ended
  {
    Prefetcher prefetcher(
        [&](int64_t index, Batch& batch) {
          fill_with_index(index, batch);
          buffers.insert(batch.ids.data());
        },
        0, 3);
    for (int k = 0; k < 100; ++k) prefetcher.next();
  }
  EXPECT_EQ(buffers.size(), 4u);
}

TEST(Prefetcher, AnErrorComesWithItsBatch) {
  Prefetcher prefetcher(
      [](int64_t index, Batch& batch) {
        if (index == 3) throw data_error("tokens: lost");
        fill_with_index(index, batch);
      },
      0, 4);
  for (int32_t k = 0; k < 3; ++k) EXPECT_EQ(prefetcher.next().ids[0], k);
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(message_of(ExitCode::data, [&] { prefetcher.next(); }), "tokens: lost");
  }
}

TEST(Prefetcher, AccountsForWaiting) {
  using namespace std::chrono_literals;
  std::promise<void> may_fill;
  std::shared_future<void> gate = may_fill.get_future().share();
  Prefetcher prefetcher(
      [&](int64_t index, Batch& batch) {
        gate.wait();
        fill_with_index(index, batch);
      },
      0, 1);
  EXPECT_EQ(prefetcher.wait_seconds(), 0);
  std::thread opener([&] {
    std::this_thread::sleep_for(50ms);
    may_fill.set_value();
  });
  prefetcher.next();
  opener.join();
  EXPECT_GT(prefetcher.wait_seconds(), 0.01);
  EXPECT_LT(prefetcher.wait_seconds(), 30);
}

TEST(Prefetcher, EndsWithoutBeingAsked) {
  for (int round = 0; round < 200; ++round) {
    Prefetcher prefetcher(fill_with_index, 0, 1 + round % 3);
    if (round % 2 == 0) prefetcher.next();
  }
}

}  // namespace
}  // namespace caravan
